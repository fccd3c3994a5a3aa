"""ResNet50 as published, and its layer names by hand."""

import torch

from segtune.models.backbones.resnet50 import RESNET50


def test_resnet50_is_as_published() -> None:
    with torch.device("meta"):
        network = RESNET50.build()
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 2_049_000  # less the last layer
    assert network(torch.zeros(1, 3, 64, 96, device="meta")).shape == (1, 2048)


def test_keras_names_by_hand() -> None:
    assert RESNET50.aliases["conv1_relu"] == "act1"
    assert RESNET50.aliases["conv2_block1_0_conv"] == "layer1.0.downsample.0"
    assert RESNET50.aliases["conv4_block6_2_relu"] == "layer3.5.act2"
    assert RESNET50.aliases["conv5_block3_out"] == "layer4.2.act3"
    units = [sum(f"conv{stage}_block{unit}_out" in RESNET50.aliases for unit in range(1, 9)) for stage in (2, 3, 4, 5)]
    assert units == [3, 4, 6, 3]
    assert not any(name.endswith("block2_0_conv") for name in RESNET50.aliases)  # a shortcut per stage


def test_names_of_caffe_old_keras_and_tf_slim_by_hand() -> None:
    for name, path in {
        "res2a_branch1": "layer1.0.downsample.0",
        "res4f_branch2c": "layer3.5.conv3",
        "bn5c_branch2a": "layer4.2.bn1",
        "res4f": "layer3.5.act3",
        "activation_49": "layer4.2.act3",
        "add_16": "layer4.2.add",
        "max_pooling2d_1": "maxpool",
        "block1/unit_2/bottleneck_v1/conv3": "layer1.1.bn3",
    }.items():
        assert RESNET50.others[name] == path
    assert RESNET50.ambiguous["activation_40"] == ("layer3.5.act3", "layer4.0.act1")
    assert "block3/unit_6/bottleneck_v1" not in RESNET50.others  # TF-slim's has the stride of the next block
