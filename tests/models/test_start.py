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
from segtune.models import start as module
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel
from segtune.models.pretrained import LoadedWeights
from segtune.models.start import ASSUMED, build_start, check_pretrained
from tests.conftest import slow


@pytest.fixture
def start(
    network_of: Callable[[str], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[BuiltModel, list[str]]]:
    """Return a function from settings to the model and to the sources that were asked for pretrained weights."""
    network_of("resnet50")  # kept from here on
    monkeypatch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network_of("resnet50")))

    def start(
        weights: str, assume: bool = False, offline: bool = False, **restore: object
    ) -> tuple[BuiltModel, list[str]]:
        asked: list[str] = []

        def load(_spec: object, _network: object, source: str) -> LoadedWeights:
            asked.append(source)
            if source == "auto" and offline:
                return LoadedWeights(None, trouble="no ImageNet weights: …")
            return LoadedWeights(None if source == "none" else f"from {source}")

        monkeypatch.setattr(build, "load_weights", load)
        settings = SimpleNamespace(
            backbone=BackboneSettings("resnet50", weights=weights),
            taps={"low": "layer1", "high": "layer2"},
            decoder=DeepLabV3PlusSettings(channels=16, low_channels=8),
            freeze=FreezeSettings({"all": PhaseSettings(epochs=1, lr=0.1)}),
            restore=RestoreSettings(**restore),  # type: ignore[arg-type]
        )
        return build_start(settings, assume_pretrained=assume), asked  # type: ignore[arg-type]

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


def xceptions(built: BuiltModel, path: Path) -> str:
    """A checkpoint of Xception, of which the counters fit, a BatchNorm by chance, and the decoder."""
    model = built.model.state_dict()
    chance = ("backbone.bn1.", "decoder.")
    fits = {name: tensor for name, tensor in model.items() if name.startswith(chance) or "num_batches" in name}
    more = {f"backbone.block{n}.weight": torch.zeros(1, 1) for n in range(99)}
    torch.save({"settings": {"backbone": {"name": "xception"}}, "model": fits | more}, path)
    return str(path)


def test_a_backbone_of_another_network_is_as_if_nothing_were_restored(start, tmp_path: Path) -> None:
    path = xceptions(start("none")[0], tmp_path / "a.pt")
    built, asked = start("auto", checkpoint=path)
    assert (asked, built.weights.source, built.new) == (["none", "auto"], "from auto", ())
    report = built.restored
    assert report is not None
    assert not any(name.startswith("backbone.") for name in report.restored)
    assert set(report.foreign) == {f"backbone.bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
    total = sum(n.startswith("backbone.") and tensor.ndim > 1 for n, tensor in built.model.state_dict().items())
    counts = f"0 of {total} weights of resnet50 fit by name and shape"
    assert report.warning == (
        f"{path} was trained with the backbone xception, not resnet50: its backbone is not restored ({counts})."
    )
    assert f"warning: {report.warning}" in report.lines()
    assert "  of another network (4): backbone.bn1.weight and 3 more" in report.lines(most=1)
    with pytest.raises(UserError, match=r"Nothing of .* can be restored.* was trained with the backbone xception"):
        start("auto", checkpoint=path, scope="backbone")


@pytest.mark.parametrize("kind", ["bn", slow("num_batches"), slow("running")])
def test_vectors_and_counters_alone_restore_no_backbone(start, tmp_path: Path, kind: str) -> None:
    model = start("none")[0].model.state_dict()
    torch.save({n: t for n, t in model.items() if kind in n or n.startswith("decoder.")}, tmp_path / "a.pth")
    built, asked = start("auto", checkpoint=str(tmp_path / "a.pth"))
    assert (asked, built.weights.source) == (["none", "auto"], "from auto")
    assert start("none", checkpoint=str(tmp_path / "a.pth"))[0].weights.source is None


def test_a_small_part_of_the_backbone_is_restored_on_top_of_its_weights(start, tmp_path: Path) -> None:
    path = file_of(start("none")[0], tmp_path / "a.pth", "backbone.conv1", "backbone.layer1.0", "decoder.")
    built, asked = start("auto", checkpoint=path)
    assert (asked, built.weights.source, built.new) == (["none", "auto"], "from auto", ())
    assert built.restored is not None
    assert "backbone.conv1.weight" in built.restored.restored
    built, _ = start("auto", offline=True, checkpoint=path)  # most of the backbone is random
    assert (built.weights.source, built.weights.trouble) == (path, "no ImageNet weights: …")
    assert "backbone.layer2.0.conv1" in built.new


def test_a_plan_assumes_weights_that_there_are(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for weights in ("auto", "imagenet"):
        built, asked = start(weights, assume=True)
        assert (asked, built.weights, built.new) == (["none"], LoadedWeights(ASSUMED), ("decoder",))
    for weights in ("none", "a/file.pth"):
        assert start(weights, assume=True)[1] == [weights]
    path = file_of(built, tmp_path / "a.pth", "backbone.", "decoder.")
    assert start("auto", assume=True, checkpoint=path)[0].weights.source == path
    monkeypatch.setattr(module, "home_of", lambda _: ("", ""))  # timm knows the network, but has no weights of it
    assert start("auto", assume=True)[1] == ["auto"]


def test_data_of_ones_own_need_pretrained_weights(start, caplog: pytest.LogCaptureFixture) -> None:
    for data in ("folder", "portraits"):
        settings = SimpleNamespace(data=SimpleNamespace(name=data), backbone=BackboneSettings("resnet50"))
        for built in (start("auto")[0], start("none")[0]):
            check_pretrained(built, settings)  # type: ignore[arg-type]
        assert not caplog.messages
        built = start("auto", offline=True)[0]
        if data == "folder":
            with pytest.raises(UserError, match=r"^backbone\.weights=auto: no ImageNet weights: …$"):
                check_pretrained(built, settings)  # type: ignore[arg-type]
            continue
        check_pretrained(built, settings)  # type: ignore[arg-type]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.messages == [
            "No ImageNet weights: …\nThe backbone starts from RANDOM weights, so none of it is frozen. Expect a lower "
            "Dice. With data of your own this is an error."
        ]
