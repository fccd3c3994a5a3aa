"""VGG16 as published, its fully connected layers as convolutions, and its layer names by hand."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from segtune.models.backbones.vgg16 import VGG16


def test_vgg16_is_as_published() -> None:
    with torch.device("meta"):
        network = VGG16.build()
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes["fc6.weight"] == (4096, 512, 7, 7)
    assert shapes["fc7.weight"] == (4096, 4096, 1, 1)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 138_357_544 - 4_097_000  # less the last layer


def test_fc6_and_fc7_by_hand(network_of: Callable[[str], nn.Module]) -> None:
    network = network_of("vgg16")
    state = network.state_dict()
    network.set_submodule("features", nn.Identity())
    pool5 = torch.rand(2, 512, 7, 7)
    hidden = F.relu(F.linear(pool5.flatten(1), state["fc6.weight"].flatten(1), state["fc6.bias"]))
    expected = F.relu(F.linear(hidden, state["fc7.weight"].flatten(1), state["fc7.bias"]))
    with torch.no_grad():
        torch.testing.assert_close(network(pool5)[:, :, 3, 3], expected, rtol=1e-4, atol=1e-4 * expected.max().item())


def test_keras_names_by_hand() -> None:
    """Features: 2, 2, 3, 3 and 3 convolutions, a ReLU behind each, and a pooling behind each block."""
    assert VGG16.aliases["block1_conv1"] == "features.1"  # the ReLU, which Keras counts as part of the convolution
    assert VGG16.aliases["block1_pool"] == "features.4"
    assert VGG16.aliases["block3_conv3"] == "features.15"
    assert VGG16.aliases["block5_pool"] == "features.30"
    assert VGG16.aliases["fc2"] == "relu7"
    assert VGG16.blocks["block2"] == tuple(f"features.{n}" for n in range(5, 10))


def test_names_of_caffe_by_hand() -> None:
    for name, path in {"conv3_3": "features.15", "relu3_3": "features.15", "pool4": "features.23"}.items():
        assert VGG16.others[name] == path
    assert len(VGG16.others) == 2 * 13 + 5
