"""The model that a run begins with: which source its weights have, and what stays new."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings, RestoreSettings
from segtune.config.training_settings import FreezeSettings, PhaseSettings
from segtune.errors import UserError
from segtune.models import build
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel
from segtune.models.pretrained import LoadedWeights
from segtune.models.start import build_start


@pytest.fixture
def start(
    network_of: Callable[[str], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[BuiltModel, list[str]]]:
    """Return a function from settings to the model and to the sources that were asked for pretrained weights."""
    network_of("resnet50")  # kept from here on
    monkeypatch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network_of("resnet50")))

    def start(weights: str, **restore: object) -> tuple[BuiltModel, list[str]]:
        asked: list[str] = []

        def load(_spec: object, _network: object, source: str) -> LoadedWeights:
            asked.append(source)
            return LoadedWeights(None if source == "none" else f"from {source}")

        monkeypatch.setattr(build, "load_weights", load)
        settings = SimpleNamespace(
            backbone=BackboneSettings("resnet50", weights=weights),
            taps={"low": "layer1", "high": "layer2"},
            decoder=DeepLabV3PlusSettings(channels=16, low_channels=8),
            freeze=FreezeSettings({"all": PhaseSettings(epochs=1, lr=0.1)}),
            restore=RestoreSettings(**restore),  # type: ignore[arg-type]
        )
        return build_start(settings), asked  # type: ignore[arg-type]

    return start


def file_of(built: BuiltModel, path: Path, *parts: str) -> str:
    torch.save({name: value for name, value in built.model.state_dict().items() if name.startswith(parts)}, path)
    return str(path)


def test_without_a_file_the_weights_are_those_of_the_backbone(start) -> None:
    built, asked = start("auto")
    assert (asked, built.weights.source, built.new, built.restored) == (["auto"], "from auto", ("decoder",), None)


def test_a_file_of_the_whole_model_needs_no_other_weights(start, tmp_path: Path) -> None:
    path = file_of(start("none")[0], tmp_path / "a.pth", "backbone.", "decoder.")
    built, asked = start("auto", checkpoint=path)
    assert (asked, built.weights.source, built.new) == (["none"], path, ())
    assert built.restored is not None
    assert built.restored.missing == ()


def test_a_file_of_the_decoder_leaves_the_backbones_weights(start, tmp_path: Path) -> None:
    path = file_of(start("none")[0], tmp_path / "a.pth", "decoder.")
    built, asked = start("auto", checkpoint=path, scope="decoder")
    assert (asked, built.weights.source, built.new) == (["auto"], "from auto", ())
    built, asked = start("auto", checkpoint=path)  # as a whole: the file has no backbone, so it is loaded after all
    assert (asked, built.weights.source, built.new) == (["none", "auto"], "from auto", ())


def test_the_scale_is_measured_unless_the_decoder_is_the_files(start, tmp_path: Path) -> None:
    def scales(built: BuiltModel) -> list[float]:
        return [built.model.get_buffer(f"scale.{role}").item() for role in ("low", "high")]

    saved, _ = start("none")
    with torch.no_grad():
        saved.model.get_submodule("backbone.layer1.2.bn3").weight.fill_(1000)
    saved.model.scale.get_buffer("low").fill_(3)
    path = file_of(saved, tmp_path / "all.pth", "backbone.", "decoder.", "scale.")
    whole, backbone = start("none", checkpoint=path)[0], start("none", checkpoint=path, scope="backbone")[0]
    assert scales(whole) == scales(saved)
    assert backbone.restored.missing == backbone.restored.unexpected == ()
    assert scales(backbone)[0] < 2**-5
    part = start("none", checkpoint=path, exclude=["decoder.project"])[0]
    assert scales(part) == [scales(backbone)[0], scales(saved)[1]]
    older = start("none", checkpoint=file_of(saved, tmp_path / "older.pth", "backbone.", "decoder."))[0]
    assert scales(older) == [1, 1]
    assert "scale.low" in older.restored.restored


def test_what_the_file_lacks_is_new(start, tmp_path: Path) -> None:
    path = file_of(
        start("none")[0], tmp_path / "a.pth", "backbone.layer", "backbone.bn1", "decoder.aspp", "decoder.refine"
    )
    built, _ = start("auto", checkpoint=path)
    assert built.new[0] == "backbone.conv1"
    assert set(built.new[1:]) == {"decoder.project.0", "decoder.project.1", "decoder.classifier"}


def test_weights_that_are_asked_for_by_name_are_loaded_first(start, tmp_path: Path) -> None:
    path = file_of(start("none")[0], tmp_path / "a.pth", "backbone.", "decoder.")
    built, asked = start("imagenet", checkpoint=path)
    assert (asked, built.weights.source) == (["imagenet"], "from imagenet")


def test_a_file_that_is_not_there(start, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No weights file at"):
        start("none", checkpoint=str(tmp_path / "none.pth"))
