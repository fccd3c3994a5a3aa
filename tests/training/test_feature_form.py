"""A name covers all that decides a value, and values come back as they would be without being kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segtune.config.training_settings import PhaseSettings
from segtune.data.sources.base import Pair
from segtune.models.build import BuiltModel
from segtune.models.model import SegmentationModel
from segtune.models.split import Crossing, split_backbone
from segtune.runtime.device import Device
from segtune.training import feature_form
from segtune.training.feature_form import FeatureForm, folder_name, record_name
from segtune.training.freezing import choose, freeze, train_mode

CPU = torch.device("cpu")
FULL = FeatureForm(Device(CPU, torch.float32), torch.float32, 2)
VIEWS = {"size": (64, 64), "seed": 0, "augment": {"crop": None, "transforms": {"HorizontalFlip": {"p": 0.5}}}}


@pytest.fixture
def split(built_of: Callable[[str], BuiltModel]) -> SegmentationModel:
    built = built_of("resnet50_deeplabv3plus")
    scope = choose(built.model, "one", PhaseSettings(epochs=1, lr=1.0, backbone=["layer3.2.conv3"]), built.blocks)
    freeze(built.model, scope)
    train_mode(built.model, scope)
    built.model.split = split_backbone(built.model.backbone)
    return built.model


def images(count: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("compute", "kept"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)],
)
def test_what_is_kept_is_what_is_computed_with_the_same_rounding(
    split: SegmentationModel, compute: torch.dtype, kept: torch.dtype
) -> None:
    form = FeatureForm(Device(CPU, compute), kept, 3)
    crossing = form.through(split, images(3))
    masks = images(3)[:, :1] % 2
    records = list(form.records(crossing, masks))
    assert len(records) == 3
    assert {value.dtype for name, value in records[0].items() if name != "mask"} == {kept}
    batch = form.batch([records[i] for i in (2, 0, 1)], (64, 64))
    order = torch.tensor([2, 0, 1])
    assert torch.equal(batch["mask"], masks[order])
    found = batch["image"]
    assert isinstance(found, Crossing)
    assert found.size == crossing.size == (64, 64)
    assert found.values.keys() == crossing.values.keys()
    for name, value in crossing.values.items():
        assert found.values[name].dtype == value.dtype
        assert torch.equal(found.values[name], value[order])
        assert found.values[name].is_contiguous(memory_format=torch.channels_last)


def test_what_an_image_gives_does_not_depend_on_its_batch(split: SegmentationModel) -> None:
    form = FeatureForm(Device(CPU, torch.float32), torch.float32, 3)
    together, alone = form.through(split, images(3)), form.through(split, images(3)[1:2])
    assert all(torch.equal(alone.values[name], value[1:2]) for name, value in together.values.items())
    more = form.through(split, torch.cat([images(3), images(3)[:2]]))  # two whole batches, the second filled up
    assert more.size == (64, 64)
    order = [0, 1, 2, 0, 1]
    assert all(torch.equal(more.values[name], value[order]) for name, value in together.values.items())


def test_the_model_takes_what_crosses_as_it_takes_images(split: SegmentationModel) -> None:
    split.eval()
    with torch.no_grad():
        wanted = split(images(2))
        assert torch.equal(split(FULL.through(split, images(2))), wanted)
    split.split = None
    with pytest.raises(ValueError, match="not split"):
        split(Crossing({}, (64, 64)))
    with pytest.raises(ValueError, match="not split"):
        split.crossing(images(2))


def test_gradients_of_what_trains_are_those_of_the_whole_model(split: SegmentationModel) -> None:
    split.eval()  # so that BatchNorm takes the same statistics
    split(images(2)).square().sum().backward()
    wanted = {name: each.grad for name, each in split.named_parameters() if each.requires_grad}
    split.zero_grad(set_to_none=True)
    split(FULL.through(split, images(2))).square().sum().backward()
    for name, parameter in split.named_parameters():
        assert (parameter.grad is None) is (name not in wanted)
        if name in wanted:
            assert torch.equal(parameter.grad, wanted[name]), name


def test_another_weight_layer_view_or_precision_has_another_name(
    split: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = folder_name(split, FULL, VIEWS)
    assert folder_name(split, FULL, VIEWS) == name
    others = {
        folder_name(split, FULL, VIEWS | {"seed": 1}),
        folder_name(split, FULL, VIEWS | {"size": (64, 96)}),
        folder_name(
            split, FULL, VIEWS | {"augment": {"crop": None, "transforms": {"HorizontalFlip": {"p": 0.5000001}}}}
        ),
        folder_name(split, replace(FULL, dtype=torch.bfloat16), VIEWS),
        folder_name(split, replace(FULL, batch_size=3), VIEWS),
        folder_name(split, replace(FULL, compute=Device(CPU, torch.bfloat16)), VIEWS),
    }
    for tensor in (
        split.get_parameter("backbone.layer1.0.conv1.weight").data[0, 0, 0, :1],
        split.get_buffer("backbone.layer1.0.bn1.running_mean")[:1],
        split.mean,
    ):
        before = tensor.clone()
        tensor.copy_(torch.nextafter(tensor, torch.full_like(tensor, 999)))
        others.add(folder_name(split, FULL, VIEWS))
        tensor.copy_(before)
        assert folder_name(split, FULL, VIEWS) == name
    split.get_submodule("backbone.layer1.0.conv2").dilation = (2, 2)
    others.add(folder_name(split, FULL, VIEWS))
    split.get_submodule("backbone.layer1.0.conv2").dilation = (1, 1)
    monkeypatch.setattr(feature_form, "installed", lambda *libraries: "another")
    others.add(folder_name(split, FULL, VIEWS))
    monkeypatch.undo()
    assert name not in others
    assert len(others) == 11
    last = split.get_parameter("decoder.classifier.weight").data
    last += 1  # what trains does not decide
    split.get_parameter("backbone.layer3.2.conv3.weight").data.add_(1)
    split.get_buffer("backbone.layer1.0.bn1.num_batches_tracked").add_(1)
    assert folder_name(split, FULL, VIEWS) == name


def test_another_split_has_another_name(built_of: Callable[[str], BuiltModel]) -> None:
    names = set()
    for trains in (["layer3"], ["layer3.0.conv2"], ["layer3.0.conv3"], []):
        built = built_of("resnet50_deeplabv3plus")
        phase = PhaseSettings(epochs=1, lr=1.0, backbone=trains or 0)
        scope = choose(built.model, "one", phase, built.blocks)
        freeze(built.model, scope)
        train_mode(built.model, scope)
        built.model.split = split_backbone(built.model.backbone)
        names.add(folder_name(built.model, FULL, VIEWS))
    assert len(names) == 4


def test_another_photo_mask_or_view_has_another_name() -> None:
    pair = Pair("a", Path("a.jpg"), Path("a.png"), "12 34 56")
    names = {record_name(pair, 0), record_name(pair, 1)}
    names |= {record_name(replace(pair, checksums=each), 0) for each in ("13 34 56", "12 35 56", "12 34 57")}
    assert len(names) == 5
    assert record_name(replace(pair, photo=Path("elsewhere/b.jpg")), 0) == record_name(pair, 0)
