"""Tap search with a probe whose answers are given, candidates of ResNet50, and rows by hand."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.layer_info import BackboneSummary, Group, LayerInfo, describe_network
from segtune.probing.tap_search import MOST_CANDIDATES, candidates, field_of, pretrained, row, search


class GivenProbe:
    """A probe that finds given Dice scores, by the set of layers; all others are 0.1."""

    def __init__(self, dices: Mapping[frozenset[str], float]) -> None:
        self.dices = dices
        self.fitted: list[list[Group]] = []

    def fit(self, groups: Sequence[Group]) -> dict[Group, None]:
        self.fitted.append(list(groups))
        return dict.fromkeys(groups)

    def measure(self, classifiers: Mapping[Group, None]) -> dict[Group, float]:
        return {group: self.dices.get(frozenset(group), 0.1) for group in classifiers}


SCORES = {"b": 0.5, "a": 0.4, "a b": 0.6, "a c": 0.9, "b c": 0.7}
GIVEN = {frozenset(names.split()): dice for names, dice in SCORES.items()}


def summary(**strides: int) -> BackboneSummary:
    spec = BackboneSpec("channels", nn.Identity, "channels", (0.5,) * 3, (0.5,) * 3, {})
    layers = [
        LayerInfo(name, "", "all", 1, stride, 32, 32, (1, 1), False, 0, index, True)
        for index, (name, stride) in enumerate(strides.items())
    ]
    count = len(layers)
    return BackboneSummary(
        spec, tuple(layers), 0, count, tuple(strides), np.ones(count, np.int64), np.eye(count, dtype=np.int64)
    )


def test_the_search_is_greedy_and_returns_layers_in_the_order_of_depth() -> None:
    probe = GivenProbe(GIVEN)
    found = search(probe, ["c", "b", "a"], 2, [], summary(a=1, b=1, c=1))  # type: ignore[arg-type]
    assert found.best == ("b", "c")  # not a and c, which are better: the best single layer is b
    assert found.at_step(0) == {"c": 0.1, "b": 0.5, "a": 0.4}
    assert found.at_step(-1) == {"c": 0.7, "a": 0.6}
    assert [len(groups) for groups in probe.fitted] == [3, 2]


def test_a_finer_layer_never_comes_behind_a_coarser_one() -> None:
    found = search(GivenProbe(GIVEN), ["a", "b", "c"], 2, [], summary(a=2, b=4, c=2))  # type: ignore[arg-type]
    assert ("b", "c") not in found.dices
    assert found.best == ("a", "b")


def test_a_layer_that_none_can_complete_is_not_tried() -> None:
    found = search(GivenProbe(GIVEN), ["a", "b", "c"], 2, [], summary(a=4, b=8, c=4))  # type: ignore[arg-type]
    assert set(found.steps[0]) == {"a", "b", "c"}
    found = search(GivenProbe(GIVEN), ["a", "b", "c"], 2, [], summary(a=4, b=2, c=2))  # type: ignore[arg-type]
    assert set(found.steps[0]) == {"b", "c"}  # a is coarser than all behind it
    assert found.best == ("b", "c")


def test_other_groups_are_measured_as_well() -> None:
    also = [("c",), ("a", "b", "c"), ("a", "b")]
    found = search(GivenProbe(GIVEN), ["a", "b"], 2, also, summary(a=1, b=1, c=1))  # type: ignore[arg-type]
    assert set(found.dices) == {("a",), ("b",), *also}
    assert found.best == ("a", "b")


def test_too_few_candidates() -> None:
    with pytest.raises(UserError) as caught:
        search(GivenProbe(GIVEN), ["a"], 2, [], summary(a=1, b=1, c=1))  # type: ignore[arg-type]
    assert str(caught.value) == "1 candidates are too few for 2 taps. Name more (layers=[…])."


# --- candidates ---


@pytest.fixture(scope="module")
def resnet() -> tuple[BackboneSummary, nn.Module]:
    spec = BACKBONES["resnet50"]
    with torch.device("meta"):
        network = spec.build()
    return describe_network(network, spec, (64, 96)), network


def test_candidates_are_what_convolutions_and_poolings_read(resnet: tuple[BackboneSummary, nn.Module]) -> None:
    found = candidates(*resnet, None, [])
    assert len(found) == MOST_CANDIDATES
    assert {name.rpartition(".")[2] for name in found} <= {"act1", "act2", "aa", "act3", "maxpool"}  # aa: an identity
    order = [layer.name for layer in resnet[0].layers]
    assert sorted(found, key=order.index) == found


def test_candidates_by_name_and_pattern(resnet: tuple[BackboneSummary, nn.Module]) -> None:
    asked = ["conv3_block4_out", r"re:layer1\.[01]\.act3", "layer1.0.act3"]
    assert candidates(*resnet, asked, []) == ["layer1.0.act3", "layer1.1.act3", "layer2.3.act3"]


def test_layers_of_lacking_weights_are_left_out(resnet: tuple[BackboneSummary, nn.Module]) -> None:
    summary, _ = resnet
    lacking = ["layer2.0.conv1.weight"]
    assert pretrained(summary, lacking)[-1].name == "layer1.2.act3"
    assert candidates(*resnet, None, lacking)[-1] == "layer1.2.act3"
    with pytest.raises(UserError) as caught:
        candidates(*resnet, ["layer1", "layer3"], lacking)
    assert str(caught.value).startswith("layers: layer3.5.act3 would be probed on random weights")


def test_a_row_joins_the_facts_of_its_layers(resnet: tuple[BackboneSummary, nn.Module]) -> None:
    found = row(("layer1.2.act3", "layer3.5.add"), 0.123456, resnet[0], "best")
    assert found["layers"] == "layer1.2.act3 + layer3.5.add"
    assert found["keras"] == "conv2_block3_out + conv4_block6_add"
    assert (found["stride"], found["channels"], found["dice"]) == ("4 + 16", "256 + 1024", 0.1235)
    assert found["parameters"] == resnet[0].by_name["layer3.5.add"].parameters
    assert found["note"] == "best"


@pytest.mark.parametrize(
    ("field", "sees_all", "text"), [((35, 35), False, "35"), ((35, 43), False, "35 x 43"), ((7, 7), True, "7+")]
)
def test_a_receptive_field_as_text(field: tuple[int, int], sees_all: bool, text: str) -> None:
    assert field_of(LayerInfo("a", "", "all", 1, 4, 8, 8, field, sees_all, 0, 0, True)) == text
