"""What `plan` says of features, against what is kept and computed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from segtune.config.cache_settings import CacheSettings
from segtune.config.data_settings import AugmentSettings
from segtune.config.schema import Settings
from segtune.config.training_settings import PhaseSettings
from segtune.models.build import BuiltModel
from segtune.models.split import split_backbone
from segtune.runtime.device import Device
from segtune.training.feature_form import FeatureForm
from segtune.training.feature_plan import feature_facts, feature_line
from segtune.training.freezing import choose
from segtune.training.phases import Phase, entered
from tests.training.conftest import settings

CPU = Device(torch.device("cpu"), torch.float32)


@pytest.fixture
def built(built_of: Callable[[str], BuiltModel]) -> BuiltModel:
    return built_of("resnet50_deeplabv3plus")


def phase_of(built: BuiltModel, **given: object) -> Phase:
    chosen = PhaseSettings(**{"epochs": 3, "lr": 1.0, **given})
    return Phase("one", chosen, choose(built.model, "one", chosen, built.blocks))


def chosen(**cache: object) -> Settings:
    return replace(settings(Path("none"), batch_size=2), cache=CacheSettings(**{"mode": "auto", "views": 2, **cache}))


@pytest.mark.parametrize("dtype", ["auto", "bf16"])
def test_bytes_and_operations_are_those_of_the_frozen_part(built: BuiltModel, dtype: str) -> None:
    phase = phase_of(built, backbone=["layer3.2.conv3"])
    facts = feature_facts(built, phase, chosen(dtype=dtype), CPU)
    assert facts
    assert (facts["frozen_to"], facts["views"]) == ("layer3.2.act2", 2)
    images, masks = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    with entered(built, phase), torch.no_grad():
        built.model.split = split_backbone(built.model.backbone)
        form = FeatureForm(CPU, {"auto": torch.float32, "bf16": torch.bfloat16}[dtype], 2)
        crossing = form.through(built.model, images)
        record = next(form.records(crossing, masks))
        with FlopCounterMode(display=False) as whole:
            built.model(images)
        with FlopCounterMode(display=False) as rest:
            built.model(crossing)
        built.model.split = None
    assert facts["bytes"] == sum(value.nbytes for value in record.values())
    assert 2 * facts["flops"] == whole.get_total_flops() - rest.get_total_flops() > 0


def test_what_auto_would_do(built: BuiltModel) -> None:
    facts = {"frozen_to": "layer2", "bytes": 2_500_000, "flops": 30, "views": 2}
    begin = "features  up to layer2 can be kept: 2.50 MB for an image and view, "

    def line(epochs: int | None = 3, **more: object) -> str:
        steps = 7 if epochs is None else None
        return feature_line(facts, phase_of(built, backbone=0, epochs=epochs, steps=steps), chosen(**more), 100)

    saves = "each step then saves 60% of its computation. "
    two = f"{begin}5.0 GB for 1,000 images x 2 views; {saves}"
    assert line() == f"{two}auto keeps them where the phase gets shorter, which it measures"
    assert line(epochs=None) == line()
    assert line(mode="off") == f"{two}cache.mode=off keeps none"
    assert line(mode="disk") == f"{two}cache.mode=disk keeps them"
    none = "auto keeps none: in {} epochs no view of an image comes twice (cache.views=2)"
    assert line(epochs=2) == two + none.format(2)
    facts["views"] = 1
    assert line(epochs=2).startswith(f"{begin}2.5 GB for 1,000 images; {saves}auto keeps them where")


def test_without_augmentation_there_is_one_view_and_without_a_frozen_part_nothing(built: BuiltModel) -> None:
    plain = replace(chosen(), augment=AugmentSettings())
    facts = feature_facts(built, phase_of(built, backbone=0), plain, CPU)
    assert facts
    assert facts["views"] == 1
    phase = phase_of(built, backbone="all")
    assert feature_facts(built, phase, plain, CPU) is None
    assert feature_line(None, phase, plain, 100) == "features  nothing to keep: the first layer trains"
