"""CNNs of timm as backbones, one of each family: values against hooks, what is kept against gradients, training."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.config.model_settings import BackboneSettings, DecoderSettings, DeepLabV3PlusSettings, FCN8sSettings
from segtune.models.backbones.registry import spec_of
from segtune.models.build import build_model
from segtune.models.layer_info import BackboneSummary, LayerInfo, describe
from segtune.models.taps import cut
from tests.conftest import enliven

QUICK = ["mobilenetv3_small_050", "convnext_atto", "regnetx_002"]
SLOW = [
    "convnextv2_atto", "cspresnet50", "darknet17", "densenet121", "dla46_c", "dpn48b", "ecaresnet26t",
    "edgenext_xx_small", "efficientnet_b0", "ese_vovnet19b_slim", "fasternet_t1", "fastvit_t8", "focalnet_tiny_srf",
    "gernet_s", "ghostnet_050", "hardcorenas_a", "hgnetv2_b0", "hrnet_w18_small", "inception_v3", "lcnet_035",
    "legacy_seresnet18", "mobilenetv2_035", "mobilenetv4_conv_small_035", "mobilenetv4_hybrid_medium", "nf_regnet_b0",
    "nfnet_l0", "regnety_002", "repghostnet_050", "repvgg_a0", "res2net50_26w_4s", "resnest14d", "resnet18d",
    "resnetblur18", "resnetv2_18", "resnext26ts", "rexnet_100", "selecsls42b", "skresnet18", "starnet_s050",
    "tf_efficientnetv2_b0", "tresnet_m", "xception41",
]  # fmt: skip
NETWORKS = pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])


def side_of(name: str) -> int:
    return 96 if name == "inception_v3" else 64


@cache
def anatomy_of(name: str) -> BackboneSummary:
    return describe(spec_of(name), (side_of(name), side_of(name)))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = spec_of(name).build()
    enliven(network)
    return network


def modules_among(name: str, network: nn.Module) -> list[LayerInfo]:
    """Return the layers that are modules, in the order of computation."""
    modules = dict(network.named_modules())
    return [layer for layer in anatomy_of(name).layers if layer.name in modules]


def spread(layers: list[LayerInfo], count: int) -> list[LayerInfo]:
    return [layers[i * (len(layers) - 1) // max(1, count - 1)] for i in range(min(count, len(layers)))]


def written_over(name: str, network: nn.Module) -> list[LayerInfo]:
    """Return the layers in front of a module that writes into its input, and in front of an addition."""
    places = {node: index for index, node in enumerate(anatomy_of(name).nodes)}
    writers = {path for path, module in network.named_modules() if getattr(module, "inplace", False)}
    writers |= {node for node in places if node.rpartition(".")[2].startswith(("add", "iadd"))}
    behind = {places[node] for node in writers & places.keys()}
    return [layer for layer in modules_among(name, network) if places[layer.name] + 1 in behind]


@NETWORKS
def test_layers_are_what_a_cnn_has(name: str) -> None:
    side, summary = side_of(name), anatomy_of(name)
    assert len({layer.name for layer in summary.layers}) == len(summary.layers) > 10
    smaller = 5 if name == "inception_v3" else 0  # its stem is unpadded
    for layer in summary.layers:
        larger = 2 if layer.name.rpartition(".")[2].startswith("pad") else 0
        assert layer.stride in (1, 2, 4, 8, 16, 32) or (name, layer.block) == ("selecsls42b", "head")
        assert layer.height == layer.width
        assert side // layer.stride - smaller <= layer.height <= -(-side // layer.stride) + larger, layer
        assert layer.channels >= 1
        assert max(layer.receptive_field) >= layer.stride - 1  # a strided 1 x 1 convolution leaves pixels out
        assert layer.parameters <= summary.parameters
    assert summary.layers[-1].stride >= 32


@NETWORKS
def test_blocks_hold_every_parameter_exactly_once_and_in_order(name: str) -> None:
    spec = spec_of(name)
    with torch.device("meta"):
        network = spec.build()
    paths = [path for block in spec.blocks.values() for path in block]
    assert len(spec.blocks) > 1
    for parameter, _ in network.named_parameters():
        assert sum(parameter.startswith(f"{path}.") for path in paths) == 1, parameter
    order = list(spec.blocks)
    numbers = [order.index(layer.block) for layer in anatomy_of(name).layers]
    assert numbers == sorted(numbers) or name == "hrnet_w18_small"  # its branches go on beside each other


@NETWORKS
def test_taps_equal_the_outputs_inside_the_whole_network(name: str) -> None:
    """Bit for bit, in both modes, though the layer behind may write into the tapped one."""
    whole = build(name)
    chosen = [*spread(modules_among(name, whole), 9), *spread(written_over(name, whole), 4)]
    place = {node: index for index, node in enumerate(anatomy_of(name).nodes)}
    taps = {layer.name: layer for layer in sorted(chosen, key=lambda layer: place[layer.name])}
    trunk, features = cut(copy.deepcopy(whole), dict(zip(taps, taps, strict=True)), spec_of(name))
    seen = dict[str, Tensor]()

    def note(path: str, out: Tensor) -> None:
        if path not in seen:  # a module that is called twice is tapped where it is called first
            seen[path] = out.clone()

    for path in taps:
        whole.get_submodule(path).register_forward_hook(lambda module, args, out, path=path: note(path, out))
    side = side_of(name)
    x = torch.randn(2, 3, side, side)
    for training in (False, True):
        seen.clear()
        with torch.no_grad():
            for network in (whole, trunk):
                torch.manual_seed(1)  # for layers that leave something out at random
                found = network.train(training)(x)
        assert len(seen) == len(taps) == len(found) >= min(9, len(anatomy_of(name).layers))
        for path, layer in taps.items():
            assert seen[path].std() > 0, path
            assert torch.equal(found[path], seen[path]), (path, training)
            assert tuple(found[path].shape[1:]) == (layer.channels, layer.height, layer.width)
            assert (features[path].node, features[path].stride) == (path, layer.stride)
    kept = trunk.state_dict()  # running statistics have moved alike
    assert all(torch.equal(value, kept[key]) for key, value in whole.state_dict().items() if key in kept)


@NETWORKS
def test_what_lies_behind_the_deepest_tap_is_gone(name: str) -> None:
    """All parameters stay that the whole network has a gradient for when it is asked for the tapped layer alone."""
    whole = build(name).train()
    layers = modules_among(name, whole)
    layer = layers[len(layers) // 2]
    trunk, _ = cut(copy.deepcopy(whole), {"tap": layer.name}, spec_of(name))
    tapped: list[Tensor] = []
    whole.get_submodule(layer.name).register_forward_hook(lambda module, args, out: tapped.append(out.clone()))
    side = side_of(name)
    whole(torch.randn(2, 3, side, side))
    needed = [parameter for parameter in whole.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(tapped[0].square().sum(), needed, allow_unused=True)
    wanted = {
        parameter for (parameter, _), grad in zip(whole.named_parameters(), gradients, strict=True) if grad is not None
    }
    assert {parameter for parameter, _ in trunk.named_parameters()} == wanted
    assert sum(parameter.numel() for parameter in trunk.parameters()) == layer.parameters
    owners = {parameter.rpartition(".")[0] for parameter in wanted}
    lost = {key for key in trunk.state_dict() if key not in wanted and key.rpartition(".")[0] not in owners}
    assert all("." in key and key.rpartition(".")[2] in ("filt", "num_batches_tracked") for key in lost)
    assert len(wanted) < len(needed)


@pytest.mark.parametrize(
    ("roles", "settings"),
    [
        (("low", "high"), DeepLabV3PlusSettings(channels=16, low_channels=8)),
        (("pool3", "pool4", "high"), FCN8sSettings()),
    ],
    ids=["deeplabv3plus", "fcn8s"],
)
@NETWORKS
def test_a_training_step_reaches_every_parameter(name: str, roles: tuple[str, ...], settings: DecoderSettings) -> None:
    torch.manual_seed(0)
    built = build_model(BackboneSettings(name, weights="none"), dict.fromkeys(roles, "auto"), settings)
    model, side = built.model.train(), side_of(name)
    strides = [feature.stride for feature in model.features.values()]
    assert strides == {2: [4, 16], 3: [8, 16, 32]}[len(roles)]
    images, masks = 255 * torch.rand(2, 3, side, side), torch.randint(0, 2, (2, 1, side, side)).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {key: value.clone() for key, value in model.named_parameters()}
    logits = model(images)
    assert logits.shape == masks.shape
    loss = F.binary_cross_entropy_with_logits(logits, masks)
    assert loss.isfinite()
    loss.backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    optimizer.step()
    assert any(not torch.equal(before[key], value) for key, value in model.named_parameters())
    assert all(value.isfinite().all() for value in model.parameters())
