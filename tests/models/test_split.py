"""A backbone is split where freezing ends, and both parts together compute what it computes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from segtune.config.training_settings import PhaseSettings
from segtune.models.build import BuiltModel
from segtune.models.split import Split, split_backbone
from segtune.training.freezing import choose, freeze, train_mode
from tests.conftest import slow

BuiltOf = Callable[[str], BuiltModel]


def set_up(built: BuiltModel, phase: dict) -> Split | None:
    scope = choose(built.model, "one", PhaseSettings(epochs=1, lr=1.0, **phase), built.blocks)
    freeze(built.model, scope)
    train_mode(built.model, scope)
    return split_backbone(built.model.backbone)


def parameters_of(part: nn.Module) -> set[int]:
    return {id(parameter) for parameter in part.parameters()}


PHASES = [
    ("resnet50_deeplabv3plus", {"backbone": 0}, {"low", "high"}),
    ("resnet50_deeplabv3plus", {"backbone": ["layer3.2"]}, {"low", "high"}),
    ("resnet50_deeplabv3plus", {"backbone": ["layer3.2.conv3"]}, None),  # inside a block, with its shortcut
    ("resnet50_deeplabv3plus", {"backbone": ["layer1.2.bn3"]}, None),  # in front of both taps
    ("xception_deeplabv3plus", {"backbone": 1}, None),
    ("vgg16_fcn8s", {"backbone": 2}, None),
    slow("xception_deeplabv3plus", {"backbone": 0}, None),
    slow("xception_deeplabv3plus", {"backbone": ["block4.rep.1"]}, None),
    slow("xception_fcn8s", {"backbone": 3}, None),
    slow("resnet50_fcn8s", {"backbone": 1}, None),
    slow("vgg16_deeplabv3plus", {"backbone": ["features.17"]}, None),
    slow("resnet50_deeplabv3plus", {"backbone": "all", "batchnorm": "frozen", "decoder": ["classifier"]}, None),
]


@pytest.mark.parametrize(("pair", "phase", "roles"), PHASES)
def test_both_parts_together_are_the_backbone(
    pair: str, phase: dict, roles: set[str] | None, built_of: BuiltOf
) -> None:
    built = built_of(pair)
    backbone = built.model.backbone
    split = set_up(built, phase)
    if phase["backbone"] == "all":
        assert split is None
        return
    assert split is not None
    names = list(built.model.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)  # for dropout
    wanted = backbone(x)
    torch.manual_seed(1)
    values = split.frozen(x)
    found = split.trained(**values)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[role], wanted[role]) for role in wanted)
    trainable = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    assert trainable.isdisjoint(parameters_of(split.frozen))
    assert trainable <= parameters_of(split.trained)
    assert parameters_of(backbone) == parameters_of(split.frozen) | parameters_of(split.trained)
    assert not any(value.requires_grad for value in values.values())
    assert list(built.model.state_dict()) == names
    assert set(split.modules) <= {path for path, _ in backbone.named_modules()}
    if roles:
        assert len(values) >= len(roles)


@pytest.mark.parametrize("pair", ["resnet50_deeplabv3plus", slow("vgg16_fcn8s"), slow("xception_fcn8s")])
def test_the_trained_part_begins_at_the_first_layer_that_trains(pair: str, built_of: BuiltOf) -> None:
    """No layer is computed twice, and none that could be kept is left to the trained part."""
    built = built_of(pair)
    split = set_up(built, {"backbone": 1})
    assert split is not None
    called = {str(node.target) for node in split.trained.graph.nodes if node.op == "call_module"}
    assert called.isdisjoint(split.modules)
    first = next(node for node in split.trained.graph.nodes if node.op == "call_module")
    assert any(parameter.requires_grad for parameter in split.trained.get_submodule(str(first.target)).parameters())


def test_nothing_is_split_that_trains_from_its_first_layer_on(built_of: BuiltOf) -> None:
    built = built_of("resnet50_deeplabv3plus")
    assert set_up(built, {"backbone": "all"}) is None
    assert set_up(built, {"backbone": ["stem"]}) is None


def test_statistics_that_follow_the_batch_are_not_kept(built_of: BuiltOf) -> None:
    """BatchNorm in training mode without a gradient is no frozen layer, and neither is dropout."""
    built = built_of("resnet50_deeplabv3plus")
    assert set_up(built, {"backbone": 0}) is not None
    built.model.get_submodule("backbone.layer2.0.bn1").train()
    split = split_backbone(built.model.backbone)
    assert split is not None
    assert "layer2.0.bn1" not in split.modules
    assert "layer2.0.conv1" in split.modules
