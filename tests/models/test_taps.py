"""Taps against hooks on the whole network, the comments in conf/taps, and dilation against strides."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import yaml
from torch import Tensor, nn
from torchvision.models.feature_extraction import get_graph_node_names

from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.decoders.registry import DECODERS
from segtune.models.dilation import set_output_stride
from segtune.models.taps import FeatureInfo, StopGradient, _Padded, common_form, cut, resolve
from segtune.models.tracing import tracer_options

NetworkOf = Callable[[str], nn.Module]

ALL_CONF_TAPS = sorted((Path(__file__).parents[2] / "conf" / "taps").glob("*.yaml"))
CONF_TAPS = [path for path in ALL_CONF_TAPS if not path.stem.startswith("timm_")]

# Where the next layer writes into the tapped one in the untouched network: an in-place ReLU, or `x += shortcut`.
OVERWRITTEN = {
    "vgg16": {"low": "features.14", "mid": "features.29", "high": "fc6"},
    "resnet50": {"low": "layer1.0.bn1", "mid": "layer2.3.bn3", "high": "layer3.5.act2"},
    "xception": {"low": "bn1", "mid": "block3.rep.2", "high": "block8.rep.6"},
}


def cut_meta(name: str, taps: dict[str, str]) -> tuple[nn.Module, dict[str, FeatureInfo]]:
    """Cut the real backbone without memory for its values."""
    with torch.device("meta"):
        return cut(BACKBONES[name].build(), taps, BACKBONES[name])


def error_of(name: str, taps: dict[str, str]) -> str:
    with pytest.raises(UserError) as caught:
        cut_meta(name, taps)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "alias", "feature"),
    [
        ("resnet50", "conv2_block3_2_relu", FeatureInfo("layer1.2.act2", 64, 4)),
        ("resnet50", "conv4_block6_2_relu", FeatureInfo("layer3.5.act2", 256, 16)),
        ("xception", "block4_sepconv1_act", FeatureInfo("block3.rep.0", 256, 8)),
        ("xception", "block9_sepconv3_act", FeatureInfo("block8.rep.6", 728, 16)),
    ],
)
def test_keras_names_of_the_published_models(name: str, alias: str, feature: FeatureInfo) -> None:
    assert cut_meta(name, {"tap": alias})[1] == {"tap": feature}


@pytest.mark.parametrize("path", CONF_TAPS, ids=lambda path: path.stem)
def test_taps_of_conf_are_what_their_comments_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    name = path.stem.split("_")[0]
    trunk, features = cut_meta(name, yaml.safe_load(text))
    options = tracer_options(trunk, BACKBONES[name])
    nodes = get_graph_node_names(trunk, options, suppress_diff_warning=True)[0]
    lines = text.splitlines()
    assert len(lines) == len(features)
    for line, (role, feature) in zip(lines, features.items(), strict=True):
        said = re.fullmatch(r"(\w+): .*?(\d+) channels, stride (\d+)(?:; in PyTorch (\S+))?(?:; .*)?", line)
        assert said is not None, line
        assert (role, feature.channels, feature.stride) == (said[1], int(said[2]), int(said[3]))
        if said[4]:
            assert resolve(said[4], nodes, BACKBONES[name]) == feature.node


def test_conf_has_taps_for_every_pair() -> None:
    assert {path.stem for path in ALL_CONF_TAPS} == {
        f"{name}_{d}" for name in (*BACKBONES, "timm") for d in ("deeplabv3plus", "fcn8s")
    }


@pytest.mark.parametrize("decoder", ["deeplabv3plus", "fcn8s"])
def test_taps_of_conf_for_timm_are_auto_and_say_the_strides_wanted(decoder: str) -> None:
    (path,) = (path for path in ALL_CONF_TAPS if path.stem == f"timm_{decoder}")
    said = re.findall(r"^(\w+): auto  # the last layer of stride (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert {role: int(stride) for role, stride in said} == DECODERS[decoder].strides


@pytest.mark.parametrize(
    ("name", "tap", "node"),
    [
        ("resnet50", "layer3", "layer3.5.act3"),  # a module: its last node
        ("resnet50", "stem", "maxpool"),  # a block
        ("resnet50", "conv3_block1_add", "layer2.0.add"),  # a function, not a module
        ("xception", "block3", "block3.add"),  # the module, not Keras's block
        ("xception", "exit", "act4"),
        ("vgg16", "block3", "features.16"),
        ("vgg16", "fc", "drop7"),
        ("vgg16", "features.1", "features.1"),  # not features.10
    ],
)
def test_names_of_modules_and_blocks(name: str, tap: str, node: str) -> None:
    assert cut_meta(name, {"tap": tap})[1]["tap"].node == node


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", BACKBONES)
def test_taps_equal_the_outputs_inside_the_whole_network(name: str, training: bool, network_of: NetworkOf) -> None:
    taps = OVERWRITTEN[name]
    whole, seen = network_of(name), dict[str, Tensor]()
    for role, path in taps.items():
        whole.get_submodule(path).register_forward_hook(
            lambda module, args, out, role=role: seen.update({role: out.clone()})
        )
    trunk, _ = cut(network_of(name), taps, BACKBONES[name])
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole.train(training)(x)
        found = trunk.train(training)(x)
    assert list(found) == list(taps)
    for role in taps:
        assert seen[role].std() > 0
        assert torch.equal(found[role], seen[role])
        if not isinstance(whole.get_submodule(taps[role]), nn.ReLU):
            assert (found[role] < 0).any()  # no activation has passed over it


@pytest.mark.parametrize(
    ("name", "deepest", "parameters", "gone"),
    [
        ("resnet50", "conv4_block6_2_relu", 8_279_104, ("layer3.5.conv3.", "layer3.5.bn3.", "layer4.")),
        ("xception", "block9_sepconv3_act", 8_638_648, ("block8.rep.7.", "block8.rep.8.", "block9.", "block10.",
                                                        "block11.", "block12.", "conv3.", "bn3.", "conv4.", "bn4.")),
        ("vgg16", "block5_conv3", 14_714_688, ("fc6.", "fc7.")),
    ],
)  # fmt: skip
def test_what_lies_behind_the_deepest_tap_is_gone(
    name: str, deepest: str, parameters: int, gone: tuple[str, ...]
) -> None:
    with torch.device("meta"):
        whole = BACKBONES[name].build().state_dict()
    trunk, _ = cut_meta(name, {"tap": deepest})
    assert set(trunk.state_dict()) == {key for key in whole if not key.startswith(gone)}
    assert sum(p.numel() for p in trunk.parameters()) == parameters


def test_values_survive_the_cut(network_of: NetworkOf) -> None:
    network = network_of("xception")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trunk, _ = cut(network, {"tap": "block2"}, BACKBONES["xception"])
    after = trunk.state_dict()
    assert after
    assert all(torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("training", [False, True])
def test_mode_survives_the_cut(training: bool, network_of: NetworkOf) -> None:
    trunk, _ = cut(network_of("resnet50").train(training), {"tap": "layer1"}, BACKBONES["resnet50"])
    assert {module.training for module in trunk.modules()} == {training}


def test_what_only_assertions_have_kept_is_gone_too() -> None:
    """The selective kernels of a stage assert how many paths they have, which alone would keep the stage."""
    spec = spec_of("skresnet18")
    with torch.device("meta"):
        trunk, _ = cut(spec.build(), {"low": "layer1", "high": "layer3"}, spec)
    assert not [name for name, _ in trunk.named_modules() if name.startswith("layer4")]
    for graph in (trunk.train_graph, trunk.eval_graph):
        assert not graph.find_nodes(op="call_function", target=torch._assert)


def test_drop_path_scales_what_it_keeps() -> None:
    """Its division in place is an operation whose result nobody reads: the cut must not lose it."""
    torch.manual_seed(0)
    network = timm.create_model("convnext_atto", num_classes=0, drop_path_rate=0.5).train()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    trunk, _ = cut(copy.deepcopy(network), {"tap": "stages.3"}, spec_of("convnext_atto"))
    tapped: list[Tensor] = []
    network.get_submodule("stages.3").register_forward_hook(lambda m, args, out: tapped.append(out))
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        for seed in (1, 2):
            torch.manual_seed(seed)
            network(x)
            torch.manual_seed(seed)
            assert torch.equal(trunk(x)["tap"], tapped[-1])
    assert not torch.equal(*tapped)


# --- gradient stops ---

STOPS = [
    # backbone, taps, stop, what lies between the low tap and the stop, what lies behind the stop
    (
        "resnet50",
        {"low": "conv2_block3_2_relu", "high": "conv4_block6_2_relu"},
        "conv3_block4_out",  # a Keras name
        ("layer1.2.conv3.", "layer1.2.bn3.", "layer2."),
        ("layer3.",),
    ),
    (
        "resnet50",
        {"low": "layer1", "high": "layer2"},
        "conv3_block1_add",  # an addition, not a module
        ("layer2.0.",),
        ("layer2.1.", "layer2.2.", "layer2.3."),
    ),
    (
        "xception",
        {"low": "block4_sepconv1_act", "high": "block9"},
        "block8",  # ends in an addition
        (*(f"block3.rep.{n}." for n in range(1, 9)), "block3.skip", *(f"block{n}." for n in range(4, 9))),
        ("block9.",),
    ),
    (
        "vgg16",
        {"low": "block3_conv3", "high": "block5_conv3"},
        "block4_pool",
        ("features.17.", "features.19.", "features.21."),
        ("features.24.", "features.26.", "features.28."),
    ),
]


def gradients(trunk: nn.Module, x: Tensor, *roles: str) -> dict[str, Tensor | None]:
    trunk.zero_grad(set_to_none=True)
    features = trunk(x)
    sum(features[role].square().sum() for role in roles).backward()
    return {name: parameter.grad for name, parameter in trunk.named_parameters()}


@pytest.mark.parametrize(("name", "taps", "stop", "between", "behind"), STOPS, ids=[stop for _, _, stop, *_ in STOPS])
def test_a_stop_lets_no_gradient_pass_and_all_values(
    name: str, taps: dict[str, str], stop: str, between: tuple[str, ...], behind: tuple[str, ...], network_of: NetworkOf
) -> None:
    plain, expected_features = cut(network_of(name), taps, BACKBONES[name])
    stops = {stop: StopGradient()}
    stopped, features = cut(network_of(name), taps, BACKBONES[name], stops)
    assert features == expected_features
    assert list(stopped.state_dict()) == list(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for mode, active in ((True, False), (True, True), (False, False), (False, True)):  # a trunk has a graph a mode
        stops[stop].active = active
        expected, found = plain.train(mode)(x), stopped.train(mode)(x)
        assert list(found) == ["low", "high"]
        assert all(torch.equal(found[role], expected[role]) for role in expected)
    both, low = gradients(plain, x, "low", "high"), gradients(plain, x, "low")
    for active in (False, True):
        stops[stop].active = active
        for parameter, found in gradients(stopped, x, "low", "high").items():
            # Below the low tap the gradient is what that tap hands down, and nothing else.
            wanted = (both if parameter.startswith(behind) or not active else low)[parameter]
            assert (found is None) is (wanted is None), parameter
            assert found is None or torch.equal(found, wanted), parameter
    assert {name for name, grad in low.items() if grad is None} == {n for n in low if n.startswith(between + behind)}
    assert stops[stop].passed


def test_a_stop_at_a_tap_closes_the_tap(network_of: NetworkOf) -> None:
    taps = {"low": "layer1.0.act2", "high": "layer1.1.act2"}
    stops = {"layer1.0.act2": StopGradient(), "conv2_block2_2_relu": StopGradient()}
    trunk, _ = cut(network_of("resnet50"), taps, BACKBONES["resnet50"], stops)
    x = torch.randn(1, 3, 64, 64)
    stops["layer1.0.act2"].active = True
    found = trunk(x)
    assert not found["low"].requires_grad
    reached = {name for name, grad in gradients(trunk, x, "high").items() if grad is not None}
    inside = {f"{part}.{kind}" for part in ("conv1", "bn1", "conv2", "bn2") for kind in ("weight", "bias")}
    assert {name for name, _ in trunk.named_parameters()} - reached == {
        f"layer1.0.{name}" for name in inside if not name.endswith(("conv1.bias", "conv2.bias"))
    }  # all else is reached past the branch, by the shortcut
    stops["layer1.0.act2"].active, stops["conv2_block2_2_relu"].active = False, True
    assert not trunk(x)["high"].requires_grad
    assert trunk(x)["low"].requires_grad


def test_stops_at_one_layer_under_two_names(network_of: NetworkOf) -> None:
    stops = {"layer1.1": StopGradient(), "conv2_block2_out": StopGradient()}
    trunk, _ = cut(network_of("resnet50"), {"low": "act1", "high": "layer1.2.act1"}, BACKBONES["resnet50"], stops)
    x = torch.randn(1, 3, 64, 64)
    for stop in stops.values():
        stop.active = True
        grads = gradients(trunk, x, "high")
        assert {name for name, grad in grads.items() if grad is not None} == {
            f"layer1.2.{name}" for name in ("conv1.weight", "bn1.weight", "bn1.bias")
        }
        stop.active = False
    assert all(grad is not None for grad in gradients(trunk, x, "high").values())


def test_a_stop_behind_the_deepest_tap_or_at_no_layer() -> None:
    def error_at(stop: str) -> str:
        taps = {"low": "layer1", "high": "conv3_block4_2_relu"}
        with torch.device("meta"), pytest.raises(UserError) as caught:
            cut(network, taps, BACKBONES["resnet50"], {stop: StopGradient()})
        return str(caught.value)

    with torch.device("meta"):
        network = BACKBONES["resnet50"].build()
    for stop in ("layer2", "conv3_block4_3_conv"):
        assert error_at(stop) == (
            f"stop_gradient={stop}: this layer of resnet50 lies behind the deepest tap, conv3_block4_2_relu, "
            "so it is not part of the model."
        )
    assert error_at("layer2.0.atc1") == (
        "resnet50 has no layer 'layer2.0.atc1'. The nearest names: layer2.0.act1, layer4.0.act1, layer3.0.act1, "
        "layer2.3.act1, layer2.2.act1."
    )


# --- errors ---


def test_unknown_layer_lists_the_nearest_names() -> None:
    assert error_of("resnet50", {"low": "conv2_block9_2_relu"}) == (
        "resnet50 has no layer 'conv2_block9_2_relu'. The nearest names: conv2_block3_2_relu, conv2_block2_2_relu, "
        "conv2_block1_2_relu, conv5_block3_2_relu, conv5_block2_2_relu."
    )
    assert error_of("resnet50", {"low": "§"}) == (
        "resnet50 has no layer '§'. The nearest names: stem, layer1, layer2, layer3, layer4."
    )


def test_one_layer_under_two_names() -> None:
    assert error_of("resnet50", {"low": "layer3.5.act2", "high": "conv4_block6_2_relu"}) == (
        "The taps of resnet50 must be different layers, from shallow to deep in the order low, high. "
        "Got taps.low=layer3.5.act2 (layer 161), taps.high=conv4_block6_2_relu (layer 161), of 207 layers."
    )


def test_wrong_order() -> None:
    assert error_of("vgg16", {"low": "block5_conv3", "high": "block3_conv3"}) == (
        "The taps of vgg16 must be different layers, from shallow to deep in the order low, high. "
        "Got taps.low=block5_conv3 (layer 30), taps.high=block3_conv3 (layer 16), of 37 layers."
    )


@pytest.mark.parametrize(
    ("tap", "node", "shape"),
    [
        ("global_pool", "global_pool.flatten", "(1, 2048)"),
        ("global_pool.pool", "global_pool.pool", "(1, 2048, 1, 1)"),
        ("fc", "fc", "(1, 2048)"),
    ],
)
def test_layer_behind_the_pooling(tap: str, node: str, shape: str) -> None:
    assert error_of("resnet50", {"low": "layer1", "high": tap}) == (
        f"taps.high: '{node}' of resnet50: got {shape}; expected a feature map (N, C, H, W). "
        "Choose a layer before the pooling."
    )


@pytest.mark.parametrize(
    ("name", "tap"),
    [("vit_tiny_patch16_224", "blocks.3"), ("botnet26t_256", "stages.3")],
    ids=["a transformer", "attention"],
)
def test_a_network_made_for_one_size(name: str, tap: str) -> None:
    spec = spec_of(name)
    for function in (lambda net: cut(net, {"tap": tap}, spec), lambda net: set_output_stride(net, 8, name)):
        with torch.device("meta"), pytest.raises(UserError) as caught:
            function(spec.build())
        assert str(caught.value) == (
            f"{name} cannot take images of 128 x 160 pixels. A network made for one size only, as most vision "
            "transformers are, cannot be used."
        )


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("model.layer3.5.act2", "layer3.5.act2"),
        ("backbone.layer3", "layer3"),
        ("module.encoder.layer3[5].act2", "layer3.5.act2"),
        ("features[15]", "features.15"),
        ("vgg_16/conv3/conv3_3", "conv3_3"),
        ("vgg_16/pool3", "pool3"),
        ("resnet_v1_50/block1/unit_2/bottleneck_v1/conv3", "block1/unit_2/bottleneck_v1/conv3"),
        ("conv3_3/Relu:0", "conv3_3"),
        ("block9_sepconv3_act", "block9_sepconv3_act"),
    ],
)
def test_what_other_programs_write_around_a_name(name: str, form: str) -> None:
    assert common_form(name) == form


def test_names_of_other_programs_are_taken_or_explained() -> None:
    nodes = ["x", "features.15", "features.16", "fc6"]
    for name, node in {"vgg_16/conv3/conv3_3": "features.15", "pool3": "features.16", "model.fc6": "fc6"}.items():
        assert resolve(name, nodes, BACKBONES["vgg16"]) == node
    with pytest.raises(UserError, match=r"^'activation_40' of resnet50 may mean layer3\.5\.act3 or layer4\.0\.act1: "):
        resolve("activation_40", nodes, BACKBONES["resnet50"])
    with pytest.raises(UserError, match=r"^vgg16 has no layer 'block14_sepconv2_act'\. It is a layer of xception\. "):
        resolve("block14_sepconv2_act", nodes, BACKBONES["vgg16"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (1, 3), (4, 4), (7, 7)])
def test_weights_that_only_meet_padding_get_a_gradient_of_0(size: tuple[int, int], dtype: torch.dtype) -> None:
    """In bfloat16 some CPUs give them what lies in memory."""
    torch.manual_seed(0)
    layer, plain = _Padded(512, 128, 7, padding=3), nn.Conv2d(512, 128, 7, padding=3)
    plain.load_state_dict(layer.state_dict())
    x = torch.rand(2, 512, *size)
    memory = torch.full((2 * layer.weight.numel(),), 1e30)
    del memory  # what is freed is often what comes next
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = layer(x)
    expected = plain(x)
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    y.float().square().sum().backward()
    expected.square().sum().backward()
    found, wanted = layer.weight.grad, plain.weight.grad
    assert found is not None
    assert wanted is not None
    assert float((found - wanted).norm() / wanted.norm()) < 0.02
    met = [torch.tensor([abs(place - 3) < side for place in range(7)]) for side in size]
    assert not found[:, :, ~(met[0][:, None] & met[1])].any()


def test_wide_convolutions_of_a_cut_network_are_such(network_of: NetworkOf) -> None:
    trunk, _ = cut(network_of("vgg16"), {"high": "drop7"}, BACKBONES["vgg16"])
    assert {name for name, layer in trunk.named_modules() if type(layer) is _Padded} == {"fc6"}
