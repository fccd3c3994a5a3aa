"""The layers of Keras Applications against Keras itself: names, order, channels, strides, and what a range freezes."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from segtune.config.training_settings import PhaseSettings
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.layer_info import BackboneSummary, describe
from segtune.models.taps import resolve
from segtune.training.freezing import choose, freeze, train_mode

SIZE = 224

# Layers that PyTorch's networks do not have as such: inputs, zeros around an image, and all behind the last map.
ELSEWHERE = re.compile(r"input_layer|conv1_pad|pool1_pad|flatten|predictions")

# Names that Keras makes of a layer's kind and a number.
AUTOMATIC = re.compile(r"(add|conv2d|batch_normalization)(?:_(\d+))?")

KERAS = {"vgg16": "VGG16", "resnet50": "ResNet50", "xception": "Xception"}

KerasOf = Callable[..., Any]
LayersOf = Callable[[str], dict[str, SimpleNamespace]]


@pytest.fixture(scope="module")
def keras_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerasOf]:
    """Return a network of Keras by name, without weights and by default without its top."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras

        @cache
        def network(name: str, *, include_top: bool = False) -> Any:
            keras.backend.clear_session()  # its automatic numbers go on within a session
            with keras.device("meta"):
                return getattr(keras.applications, KERAS[name])(
                    weights=None, include_top=include_top, input_shape=(SIZE, SIZE, 3)
                )

        yield network
        keras.backend.clear_session()


@pytest.fixture(scope="module")
def layers_of(keras_of: KerasOf) -> LayersOf:
    """Return the layers of a network of Keras by name, in its order: their kind and output shape (height, width, C)."""
    return cache(
        lambda name: {
            layer.name: SimpleNamespace(kind=type(layer).__name__, shape=tuple(layer.output.shape[1:]))
            for layer in (keras_of(name, include_top=True) if name == "vgg16" else keras_of(name)).layers
            if not ELSEWHERE.fullmatch(layer.name)
        }
    )


@pytest.fixture(scope="module")
def anatomy_of() -> Callable[[str], BackboneSummary]:
    return cache(lambda name: describe(BACKBONES[name], (SIZE, SIZE)))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_name_of_keras_is_known_and_no_other(name: str, layers_of: LayersOf) -> None:
    spec, layers = BACKBONES[name], layers_of(name)
    named = {layer for layer in layers if not AUTOMATIC.fullmatch(layer)}
    own = {alias for alias in spec.aliases if not AUTOMATIC.fullmatch(alias)}
    assert own == named
    numbered: dict[str, int] = {}
    for layer in layers.keys() - named:
        kind = AUTOMATIC.fullmatch(layer)[1]  # type: ignore[index]
        numbered[kind] = numbered.get(kind, 0) + 1
    # Keras counts from 0 and leaves the 0 out; old versions counted from 1. Where both have a name, it is ambiguous.
    assert set(spec.aliases) - own == {n for kind, count in numbered.items() for n in (kind, f"{kind}_{count}")}
    if name == "resnet50":  # whose layers have names today, but had numbers in old versions
        numbered |= {"activation": 49, "add": 16}
    assert set(spec.ambiguous) == {f"{kind}_{n}" for kind, count in numbered.items() for n in range(1, count)}
    assert set(layers) <= {*spec.aliases, *spec.ambiguous}


def test_numbers_mean_what_they_mean_in_keras(
    layers_of: LayersOf, anatomy_of: Callable[[str], BackboneSummary]
) -> None:
    """Of layers without a name, the one in front of it in Keras's order says where it is."""
    spec, summary = BACKBONES["xception"], anatomy_of("xception")
    order = list(layers_of("xception"))
    counts = {kind: sum(layer.startswith(kind) for layer in order) for kind in ("add", "conv2d", "batch_normalization")}
    assert counts == {"add": 12, "conv2d": 4, "batch_normalization": 4}
    for place, layer in enumerate(order):
        if not (match := AUTOMATIC.fullmatch(layer)):
            continue
        kind, index = match[1], int(match[2] or 0)
        before = next(name for name in reversed(order[:place]) if not AUTOMATIC.fullmatch(name))
        block = int(re.match(r"block(\d+)_", before)[1]) - 1  # type: ignore[index]  # timm's block
        part = {"add": "add", "conv2d": "skip", "batch_normalization": "skipbn"}[kind]
        meanings = spec.ambiguous.get(layer) or (spec.aliases[layer],)
        assert meanings[-1 if index else 0] == f"block{block}.{part}"
        old = spec.ambiguous.get(f"{kind}_{index + 1}") or (spec.aliases[f"{kind}_{index + 1}"],)
        assert old[0] == f"block{block}.{part}"
        assert f"block{block}.{part}" in summary.by_name


# Where a stage begins Keras's ResNet50 strides in the first convolution of a unit, as published, timm's in the second.
STRIDES_LATER = {f"conv{stage}_block1_1_{layer}" for stage in (3, 4, 5) for layer in ("conv", "bn", "relu")}


@pytest.mark.parametrize("name", BACKBONES)
def test_channels_and_strides_are_those_of_keras(
    name: str, layers_of: LayersOf, anatomy_of: Callable[[str], BackboneSummary]
) -> None:
    spec, summary = BACKBONES[name], anatomy_of(name)
    other = set()
    for layer, theirs in layers_of(name).items():
        paths = spec.ambiguous.get(layer, (spec.aliases.get(layer, ""),))
        ours = summary.by_name[resolve(paths[-1], list(summary.nodes), spec)]
        assert ours.channels == theirs.shape[-1], layer
        if len(theirs.shape) == 1:  # VGG16's fully connected layers see the whole map
            assert (layer, ours.stride) in {("fc1", 32), ("fc2", 32)}
            continue
        # Keras's Xception has an unpadded stem, so its maps are a little smaller.
        if ours.stride != round(SIZE / theirs.shape[0]):
            other.add(layer)
            assert ours.stride * 2 == round(SIZE / theirs.shape[0])
    assert other == (STRIDES_LATER if name == "resnet50" else set())


def test_names_of_one_layer_come_with_the_table(anatomy_of: Callable[[str], BackboneSummary]) -> None:
    summary = anatomy_of("xception")
    assert summary.find("block4_sepconv1_act").keras == "block4_sepconv1_act"
    assert summary.find("block3.rep.0").keras == "block4_sepconv1_act"
    assert summary.find("block12.add").keras == "add_12"
    assert summary.find("block5.add").keras == ""


# --- the order of layers ---


@pytest.mark.parametrize("name", BACKBONES)
def test_the_order_is_that_of_keras(name: str, keras_of: KerasOf, anatomy_of: Callable[[str], BackboneSummary]) -> None:
    spec, layers = BACKBONES[name], [layer.name for layer in keras_of(name).layers]
    paths = [
        ""
        if ELSEWHERE.fullmatch(layer)
        else spec.ambiguous[layer][-1]
        if layer in spec.ambiguous
        else spec.aliases[layer]
        for layer in layers
    ]
    assert list(spec.layers) == paths
    table = anatomy_of(name).layers
    shown = {layer.index: layer.keras for layer in table if layer.keras and not AUTOMATIC.fullmatch(layer.keras)}
    shown.pop(None, None)  # VGG16's fully connected layers are of Keras's top
    assert shown == {
        index: layer for index, layer in enumerate(layers) if paths[index] and not AUTOMATIC.fullmatch(layer)
    }
    numbered = [layer.index for layer in table if layer.index is not None]
    assert sorted(numbered) == [index for index, path in enumerate(paths) if path]


def tensors_of(name: str, weight: str, network: nn.Module) -> str:
    """Return the name of our tensor for a weight of Keras, written down without segtune's tables."""
    layer, kind = weight.split("/")
    ends = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias", "moving_mean": "running_mean"}
    end = ends | {"moving_variance": "running_var", "depthwise_kernel": "conv1.weight"}
    last = (end | {"pointwise_kernel": "pointwise.weight"})[kind]
    if name == "vgg16":
        block, conv = map(int, re.findall(r"\d+", layer))
        before = sum((2, 2, 3, 3, 3)[: block - 1]) + conv - 1
        return [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)][before] + f".{last}"
    if name == "resnet50":
        if layer.startswith("conv1_"):
            return f"{layer.removeprefix('conv1_').replace('conv', 'conv1').replace('bn', 'bn1')}.{last}"
        stage, block, number, part = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(\w+)", layer).groups()  # type: ignore[union-attr]
        inside = f"downsample.{int(part == 'bn')}" if number == "0" else f"{part}{number}"
        return f"layer{int(stage) - 1}.{int(block) - 1}.{inside}.{last}"
    if match := AUTOMATIC.fullmatch(layer):  # the shortcuts, from the input on
        block = (1, 2, 3, 12)[int(match[2] or 0)]
        return f"block{block}.{'skip' if match[1] == 'conv2d' else 'skipbn'}.{last}"
    block, unit = map(int, re.findall(r"\d+", layer))
    part = "bn" if layer.endswith("_bn") else "conv"
    if block in (1, 14):
        return f"{part}{unit + (2 if block == 14 else 0)}.{last}"
    kind_of = nn.BatchNorm2d if part == "bn" else type(network.get_submodule("block1.rep.0"))
    main = network.get_submodule(f"block{block - 1}.rep")
    place = [n for n, m in main.named_children() if isinstance(m, kind_of)][unit - 1]
    return f"block{block - 1}.rep.{place}.{last}"


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("vgg16", (2, 3, 4, 11, 17)),
        ("resnet50", (3, 4, 13, 14, 15, 16, 17, 100, 172)),  # around a shortcut, between convolutions and BatchNorms
        ("xception", (2, 12, 13, 14, 15, 28, 100, 123, 130)),
    ],
)
def test_a_range_freezes_what_it_freezes_in_keras(name: str, cuts: tuple[int, ...], keras_of: KerasOf) -> None:
    """The whole network, so that the ends of ranges are Keras's; VGG16's fully connected layers are of Keras's top."""
    spec, theirs = BACKBONES[name], keras_of(name)
    with torch.device("meta"):
        model = nn.Module()
        model.backbone, model.decoder = spec.build(), nn.Conv2d(1, 1, 1)
    for module in ("fc6", "fc7") if name == "vgg16" else ():
        delattr(model.backbone, module)
    ours = model.backbone.state_dict()
    for cut in cuts:
        for index, layer in enumerate(theirs.layers):
            layer.trainable = index >= cut
        trains = {tensors_of(name, w.path, model.backbone) for w in theirs.trainable_weights} & ours.keys()
        still = {tensors_of(name, w.path, model.backbone) for layer in theirs.layers[:cut] for w in layer.weights}
        for given in (
            {"freeze": [f":{cut}"]},
            {"backbone": [f"{cut}:"]},
            {"backbone": [f"{cut - len(theirs.layers)}:"]},
        ):
            scope = choose(model, "all", PhaseSettings(epochs=1, lr=0.1, **given), spec.blocks, spec=spec)  # type: ignore[arg-type]
            freeze(model, scope)
            train_mode(model, scope)
            assert {n for n, p in model.backbone.named_parameters() if p.requires_grad} == trains, cut
            modules = dict(model.backbone.named_modules())
            fixed = {
                n
                for n in ours
                if n.rpartition(".")[2].startswith("running") and not modules[n.rpartition(".")[0]].training
            }
            assert fixed == {n for n in still if n.rpartition(".")[2].startswith("running")}, cut
    for layer in theirs.layers:
        layer.trainable = True


def test_the_end_is_that_of_keras(keras_of: KerasOf) -> None:
    for name, spec in BACKBONES.items():
        count = len(keras_of(name).layers)
        with torch.device("meta"):
            model = nn.Module()
            model.backbone, model.decoder = spec.build(), nn.Conv2d(1, 1, 1)
        with pytest.raises(UserError, match=f"past the end: {name} has {count} layers in Keras, 0 to {count - 1}."):
            choose(model, "all", PhaseSettings(epochs=1, lr=0.1, freeze=[f":{count + 1}"]), spec.blocks, spec=spec)
