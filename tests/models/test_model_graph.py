"""The graph of a model: edges drawn by hand, shapes and parameters of a real forward pass."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.models.backbones.spec import BackboneSpec
from segtune.models.build import BuiltModel, _stop_in_decoder
from segtune.models.model import SegmentationModel
from segtune.models.model_graph import ModelGraph, trace_model
from segtune.models.model_text import list_layers
from segtune.models.pretrained import LoadedWeights
from segtune.models.taps import FeatureInfo, StopGradient
from tests.conftest import slow


class Toy(nn.Module):
    """A backbone of two blocks with a pooling between them, a parameter of its own, and a stop."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, 2, 1)
        self.pool = nn.MaxPool2d(2)
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.two.gamma = nn.Parameter(torch.ones(6, 1, 1))
        self.stop = StopGradient()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.stop(self.one(x))
        high = self.pool(low)
        for layer in self.two:
            high = layer(high)
        return {"low": low, "high": high * self.two.gamma}


class Join(nn.Module):
    """A decoder with a skip: its edges differ from the order of its modules and of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Sequential()
        self.side = nn.Conv2d(4, 2, 1)
        self.main = nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU())
        self.last = nn.Conv2d(7, 1, 1)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        side, main = self.side(features["low"]), F.relu(self.main(features["high"]))
        main = self.nothing(F.interpolate(main, scale_factor=2))
        return self.last(torch.cat([main, side], 1))  # type: ignore[no-any-return]


class Around(nn.Module):
    """A decoder that is another one in a module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Join()

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.inner(features)  # type: ignore[no-any-return]


class Twice(nn.Module):
    """A decoder that calls a module twice, and reads one tap only."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.again = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 2, 3, 1, 1)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.again(self.again(self.start(features["high"])))  # type: ignore[no-any-return]


class Position(nn.Module):
    """Adds learned values to each pixel: made by a module that reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.learned = nn.Conv2d(6, 2, 1), nn.Embedding(16 * 12, 2)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        at = self.learned(torch.arange(16 * 12)).T.reshape(1, 2, 16, 12)
        return self.start(features["high"]) + at  # type: ignore[no-any-return]


class Bare(Join):
    """A decoder with a parameter that no module holds."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return super().forward(features) * self.factor


def toy(decoder: nn.Module) -> BuiltModel:
    backbone = Toy()
    features = {"low": FeatureInfo("one", 4, 2), "high": FeatureInfo("two.2", 6, 4)}
    model = SegmentationModel(backbone, decoder, features, (0.5,) * 3, (0.5,) * 3)
    stops = {"one": backbone.stop}
    blocks = {"first": ("one",), "second": ("two",)}
    spec = BackboneSpec("toy", Toy, "toy", (0.5,) * 3, (0.5,) * 3, blocks)  # type: ignore[arg-type]
    return BuiltModel(model, spec, LoadedWeights("a"), (), stops)


def drawn(graph: ModelGraph) -> list[tuple]:
    """Return each node as (kind, name, shape, parameters, names of its inputs)."""
    return [
        (n.kind, n.name, n.shape, sum(graph.counts[p] for p in n.parameters), [graph.nodes[i].name for i in n.inputs])
        for n in graph.nodes
    ]


BACKBONE = [
    ("image", "image", (3, 64, 48), 0, []),
    ("block", "first", (4, 16, 12), 4 * 27 + 4, ["image"]),
    ("block", "second", (6, 16, 12), 6 * 36 + 3 * 6, ["first"]),
    ("tap", "low", (4, 32, 24), 0, ["first"]),
    ("tap", "high", (6, 16, 12), 0, ["second"]),
]


@pytest.mark.parametrize(("decoder", "prefix"), [(Join, "decoder."), (Around, "decoder.inner.")])
def test_edges_are_those_of_the_values(decoder: type[nn.Module], prefix: str) -> None:
    graph = trace_model(toy(decoder()), (64, 48))
    assert drawn(graph) == [
        *BACKBONE,
        ("module", f"{prefix}side", (2, 32, 24), 10, ["low"]),
        ("module", f"{prefix}main", (5, 16, 12), 35, ["high"]),
        ("operation", "resize", (5, 32, 24), 0, [f"{prefix}main"]),
        ("operation", "concat", (7, 32, 24), 0, ["resize", f"{prefix}side"]),
        ("module", f"{prefix}last", (1, 32, 24), 8, ["concat"]),
        ("logits", "logits", (1, 64, 48), 0, [f"{prefix}last"]),
    ]
    assert [graph.nodes[3].label, graph.nodes[4].label, graph.nodes[5].label] == ["one", "two.2", "Conv2d"]


def test_a_module_that_is_called_twice_has_its_parameters_once() -> None:
    assert drawn(trace_model(toy(Twice()), (64, 48)))[5:] == [
        ("module", "decoder.start", (2, 16, 12), 14, ["high"]),
        ("module", "decoder.again", (2, 16, 12), 38, ["decoder.start"]),
        ("module", "decoder.again", (2, 16, 12), 0, ["decoder.again"]),
        ("logits", "logits", (1, 64, 48), 0, ["decoder.again"]),
    ]


def test_a_module_may_read_nothing() -> None:
    assert drawn(trace_model(toy(Position()), (64, 48)))[5:] == [
        ("module", "decoder.learned", (2,), 384, []),
        ("module", "decoder.start", (2, 16, 12), 14, ["high"]),
        ("operation", "add", (2, 16, 12), 0, ["decoder.start", "decoder.learned"]),
        ("logits", "logits", (1, 64, 48), 0, ["add"]),
    ]


def test_a_decoder_whose_modules_are_not_all_of_it_is_one_node() -> None:
    assert drawn(trace_model(toy(Bare()), (64, 48)))[5:] == [
        ("module", "decoder", (1, 32, 24), 10 + 35 + 8 + 1, ["low", "high"]),
        ("logits", "logits", (1, 64, 48), 0, ["decoder"]),
    ]


def test_layers_hold_each_parameter_once_as_nodes_do() -> None:
    built = toy(Join())
    graph, layers = trace_model(built, (64, 48)), list_layers(built.model, (64, 48))
    assert [(layer.path, layer.kind, layer.returns) for layer in layers[:7]] == [
        ("backbone.one", "Conv2d", (4, 32, 24)),
        ("backbone.stop", "StopGradient", (4, 32, 24)),
        ("backbone.pool", "MaxPool2d", (4, 16, 12)),
        ("backbone.two.0", "Conv2d", (6, 16, 12)),
        ("backbone.two.1", "BatchNorm2d", (6, 16, 12)),
        ("backbone.two.2", "ReLU", (6, 16, 12)),
        ("backbone.two", "Sequential", None),
    ]
    assert sorted(name for layer in layers for name in layer.parameters) == sorted(graph.counts)
    assert sorted(name for node in graph.nodes for name in node.parameters) == sorted(graph.counts)


def test_a_stop_lies_behind_the_node_that_it_is_in() -> None:
    built = toy(Join())
    _stop_in_decoder(built.model, "decoder.main.0", stop := StopGradient())
    graph = trace_model(replace(built, stops={**built.stops, "decoder.main.0": stop}), (64, 48))
    behind = {name: graph.nodes[n].name for name, n in graph.stops.items()}
    assert behind == {"one": "first", "decoder.main.0": "decoder.main"}


def test_the_model_is_left_as_it_was() -> None:
    built = toy(Join())
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    trace_model(built, (64, 48))
    assert not built.stops["one"].passed
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in built.model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.model.state_dict().items())


@pytest.mark.parametrize("pair", ["vgg16_fcn8s", slow("resnet50_deeplabv3plus"), slow("xception_deeplabv3plus")])
def test_shapes_are_those_of_a_real_forward_pass(pair: str, built_of: Callable[[str], BuiltModel]) -> None:
    built = built_of(pair)
    graph, layers = trace_model(built, (64, 96)), list_layers(built.model, (64, 96))
    seen: dict[str, tuple[int, ...]] = {}

    def see(path: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen.setdefault(path, tuple(output.shape))

    for path, module in built.model.named_modules():
        module.register_forward_hook(partial(see, path))
    with torch.no_grad():
        built.model.eval()(torch.zeros(1, 3, 64, 96))
    assert len(layers) > 30
    for layer in layers:
        assert layer.returns == ("dict" if layer.path == "scale" else seen[layer.path][1:])
        own = built.model.get_submodule(layer.path).parameters(recurse=False)
        assert sum(graph.counts[name] for name in layer.parameters) == sum(p.numel() for p in own)
    for node in graph.nodes:
        if node.kind == "module":
            assert (1, *node.shape) == seen[node.name]
    assert sum(graph.counts.values()) == sum(p.numel() for p in built.model.parameters())
    assert {name for node in graph.nodes for name in node.parameters} == graph.counts.keys()
    blocks = [node.name for node in graph.nodes if node.kind == "block"]
    assert blocks == list(built.blocks)[: len(blocks)]
