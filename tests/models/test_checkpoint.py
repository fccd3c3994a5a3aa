"""Checkpoints: what is saved comes back, files of before can be used, and what is wrong with others is said."""

import copy
import importlib
import os
import pickle
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import segtune
from segtune.__main__ import main
from segtune.config.model_settings import RestoreSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.build import BuiltModel, build_model
from segtune.models.checkpoint import Checkpoint
from segtune.models.progress import State
from segtune.models.restore import restore

#: What a file of format 2 holds under its settings, written out: it must be read as long as the format is 2.
SETTINGS: dict[str, Any] = {
    "backbone": {"name": "resnet50", "weights": "none", "output_stride": None},
    "taps": {"low": "auto", "high": "auto"},
    "decoder": {"name": "deeplabv3plus", "channels": 8, "low_channels": 4, "outputs": 2},
    "freeze": {"phases": {"all": {"epochs": 1, "lr": 1e-3, "backbone": "all"}}},
    "data": {"name": "folder", "root": "photos", "image_size": 64, "split": "val"},
    "augment": {"transforms": {}},
    "loss": {"name": "bce"},
    "optimizer": {"name": "adamw"},
    "train": {"batch_size": 2, "workers": 0, "threshold": 0.6},
    "checkpoint": {"minutes": 10.0},
    "seed": 3,
}


@pytest.fixture(scope="module")
def built(network_of: Callable[[str], nn.Module]) -> Iterator[BuiltModel]:
    """A small model, with the backbone at hand for those that are rebuilt."""
    network_of("resnet50")  # kept from here on
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network_of("resnet50")))
        settings = parse(Settings, SETTINGS)
        torch.manual_seed(0)
        yield build_model(settings.backbone, {"low": "act1", "high": "layer1"}, settings.decoder)


STATE: dict[str, Any] = {
    "phase": 0,
    "epoch": 1,
    "step": 0,
    "loss_sum": 0.0,
    "images": 0,
    "lr": 1e-3,
    "best_dice": 0.25,
    "best_epoch": 1,
    "trained_images": 8,
    "train_seconds": 1.5,
    "seconds": 2.5,
    "rows": [{"epoch": 1, "phase": "all", "train_loss": 1.0, "val_loss": 1.5, "val_dice": 0.25}],
    "phases": {
        "all": {
            "trains": "stem, decoder",
            "frozen": "",
            "trainable": 10,
            "parameters": 10,
            "parts": {"stem": {"trainable": 4, "parameters": 4}, "decoder": {"trainable": 6, "parameters": 6}},
            "backward_stops": "backbone.conv1",
            "optimizer": "adamw",
            "optimizer_bytes": 80,
        }
    },
    "frozen": {"mean": "3a7b185f888d07ab"},
    "skipped": 0,
    "skipped_in_a_row": 0,
}
OPTIMIZER: dict[str, Any] = {
    "optimizer": {"state": {}, "param_groups": [{"params": [0]}]},
    "schedule": {"last_epoch": 4},
    "scaler": {},
}


def content(**more: Any) -> dict[str, Any]:
    """What a file holds, by hand."""
    return {
        "format": 2,
        "settings": SETTINGS,
        "taps": {"low": "act1", "high": "layer1.2.act3"},
        "weights": {"source": "resnet50.safetensors", "new": ["decoder"]},
        "model": {"weight": torch.arange(6.0).reshape(2, 3)},
        **more,
    }


@pytest.fixture
def before(built: BuiltModel, tmp_path: Path) -> Path:
    """A file with all that a training wrote in format 2."""
    torch.save(content(model=built.model.state_dict(), state=STATE, movers=OPTIMIZER), tmp_path / "best.pt")
    return tmp_path / "best.pt"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        Checkpoint.load(path)
    return str(error.value).replace(str(path), "FILE")


def test_what_is_saved_comes_back(built: BuiltModel, tmp_path: Path) -> None:
    path, state, settings = tmp_path / "checkpoints" / "last.pt", State(**STATE), parse(Settings, SETTINGS)
    moved = OPTIMIZER | {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0]}]}}
    Checkpoint.of(built, settings, state, moved).save(path)
    assert sorted(os.listdir(path.parent)) == ["last.pt"]
    found = Checkpoint.load(path)
    assert found.name == str(path)
    assert found.settings == settings
    assert found.taps == {role: feature.node for role, feature in built.model.features.items()}
    assert (found.source, found.new) == (None, ("decoder",))
    assert found.state == state
    torch.testing.assert_close(found.optimizer, moved, rtol=0, atol=0)
    torch.testing.assert_close(dict(found.model), dict(built.model.state_dict()), rtol=0, atol=0)
    Checkpoint.of(built, settings).save(path)
    assert (Checkpoint.load(path).state, Checkpoint.load(path).optimizer) == (None, None)


def test_what_is_written_is_format_3(built: BuiltModel, tmp_path: Path) -> None:
    settings = parse(Settings, SETTINGS)
    Checkpoint.of(built, settings, State(**STATE), OPTIMIZER).save(tmp_path / "last.pt")
    written = torch.load(tmp_path / "last.pt", weights_only=True)
    assert list(written) == ["format", "settings", "taps", "weights", "model", "state", "movers"]
    assert written["settings"] == asdict(settings)
    assert written["taps"] == {role: feature.node for role, feature in built.model.features.items()}
    assert {name: value for name, value in written.items() if name not in ("settings", "taps", "model")} == {
        "format": 3,
        "weights": {"source": None, "new": ["decoder"]},
        "state": {**STATE, "cache_seconds": 0.0, "wait_seconds": 0.0, "start_images": 0, "start_seconds": 0.0},
        "movers": OPTIMIZER,
    }


def test_a_file_of_before_is_rebuilt_and_restored_from(built: BuiltModel, before: Path) -> None:
    checkpoint = Checkpoint.load(before)
    assert (checkpoint.settings.seed, checkpoint.settings.train.threshold) == (3, 0.6)
    again = checkpoint.rebuild()
    assert (again.weights.source, again.new) == ("resnet50.safetensors", ("decoder",))
    assert list(again.model.features) == ["low", "high"]
    images = torch.randint(256, (1, 3, 40, 50), dtype=torch.uint8)
    assert torch.equal(again.model.eval()(images), built.model.eval()(images))
    with torch.no_grad():
        again.model.decoder.classifier.weight.zero_()
    report = restore(again.model, RestoreSettings(str(before)))
    assert (report.missing, report.unexpected, report.misshapen) == ((), (), {})
    assert torch.equal(again.model(images), built.model(images))


def test_a_file_from_before_there_were_scales_predicts_the_same_bits(built: BuiltModel, before: Path) -> None:
    """Its weights read the features as they are."""
    images = torch.randint(256, (1, 3, 40, 50), dtype=torch.uint8)
    model, plain = copy.deepcopy(built.model).eval(), copy.deepcopy(built.model).eval()
    plain.scale = nn.Identity()
    expected = plain(images)
    assert not torch.equal(model(images), expected)
    written = torch.load(before)
    for role in ("low", "high"):
        del written["model"][f"scale.{role}"]
    torch.save(written, before)
    assert torch.equal(Checkpoint.load(before).rebuild().model.eval()(images), expected)
    report = restore(model, RestoreSettings(str(before), strict=True))
    assert (report.missing, report.unexpected, report.misshapen) == ((), (), {})
    assert torch.equal(model(images), expected)


def test_only_files_from_before_there_were_scales_may_lack_them(before: Path) -> None:
    """Else a damaged file would be used with other features than it was trained on."""
    written = torch.load(before, weights_only=True)
    kept = {name: tensor for name, tensor in written["model"].items() if not name.startswith("scale.")}
    torch.save({**written, "format": 3, "model": kept}, before)
    with pytest.raises(UserError, match=r"2 are missing on one side or differ in shape or type: scale\.\w+, scale"):
        Checkpoint.load(before).rebuild()


def test_a_file_that_lacks_one_scale_of_two_is_refused(before: Path) -> None:
    written = torch.load(before)
    del written["model"]["scale.high"]
    torch.save(written, before)
    with pytest.raises(UserError, match=r"1 are missing on one side or differ in shape or type: scale\.high\."):
        Checkpoint.load(before).rebuild()


def test_a_resume_may_stop_gradients_elsewhere(before: Path) -> None:
    checkpoint = Checkpoint.load(before)
    phases = {"late": {"epochs": 1, "lr": 1e-3, "backbone": "all", "stop_gradient": "layer1"}}
    assert not checkpoint.rebuild().stops
    assert list(checkpoint.rebuild(parse(Settings, SETTINGS | {"freeze": {"phases": phases}})).stops) == ["layer1"]


@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "export torch", "load"])
def test_weights_that_are_not_finite_are_refused_by_every_command(
    before: Path, photos: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    written = torch.load(before)
    written["model"]["decoder.classifier.bias"].fill_(float("nan"))
    written["model"]["decoder.classifier.weight"][0, 0] = -float("inf")
    torch.save(written, before)
    expected = (
        f"The checkpoint {before} cannot be used: 2 of its {len(written['model'])} tensors hold NaN or infinity: "
        "decoder.classifier.weight, decoder.classifier.bias. The training run diverged, or the file is damaged. "
        "Use another checkpoint."
    )
    if command == "load":
        with pytest.raises(UserError) as error:
            segtune.load(before)
        assert str(error.value) == expected
        return
    more = {
        "predict": [f"input={photos / 'images'}", f"output={before.parent / 'predictions'}"],
        "evaluate": ["data=folder", f"data.root={photos}", f"run_dir={before.parent / 'scores'}", "train.workers=0"],
        "export": [],
        "export torch": ["format=torch"],
    }[command]
    name = command.split()[0]
    assert main([name, f"checkpoint={before}", *more]) == 2
    assert capsys.readouterr().err.strip() == f"segtune {name}: {expected}"
    assert not list(before.parent.glob("predictions")) + list(before.parent.glob("*.onnx"))


def test_a_model_that_does_not_fit_is_refused(before: Path) -> None:
    written = torch.load(before)
    del written["model"]["decoder.classifier.bias"]
    written["model"] |= {"decoder.classifier.weight": torch.ones(3, 8, 1, 1), "other": torch.ones(1)}
    torch.save(written, before)
    with pytest.raises(UserError) as error:
        Checkpoint.load(before).rebuild()
    assert str(error.value) == (
        f"The checkpoint {before} cannot be used: its tensors do not match the model that it describes; 3 are "
        "missing on one side or differ in shape or type: decoder.classifier.weight, decoder.classifier.bias, other."
    )


def _sparse(model: dict[str, Tensor]) -> None:
    model["decoder.classifier.bias"] = model["decoder.classifier.bias"].to_sparse()


def _meta(model: dict[str, Tensor]) -> None:
    model["decoder.classifier.bias"] = torch.empty(2, device="meta")


def _retyped(model: dict[str, Tensor]) -> None:
    model["decoder.classifier.bias"] = torch.ones(2, dtype=torch.int64)


def _reshaped(model: dict[str, Tensor]) -> None:
    model["decoder.classifier.bias"] = torch.ones(3)


def _without(model: dict[str, Tensor]) -> None:
    del model["decoder.classifier.bias"]


MISFIT = (
    "its tensors do not match the model that it describes; 1 are missing on one side or differ in shape or type: "
    "decoder.classifier.bias."
)


@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_sparse, "its tensor decoder.classifier.bias is sparse."),
        (_meta, "its tensor decoder.classifier.bias is without values (on the device meta)."),
        (_retyped, MISFIT),
        (_reshaped, MISFIT),
        (_without, MISFIT),
    ],
)
def test_every_command_refuses_a_misfit_with_the_same_message(
    before: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    change: Callable[[dict[str, Tensor]], None],
    message: str,
) -> None:
    written = torch.load(before)
    written["model"] = dict(written["model"])
    change(written["model"])
    torch.save(written, before)
    more = {
        "predict": [f"input={photos}/images", f"output={photos.parent / 'out'}", "train.device=cpu"],
        "evaluate": ["data=folder", f"data.root={photos}", "train.device=cpu", "train.workers=0"],
        "export": ["format=torch"],
    }
    assert main([command, f"checkpoint={before}", *more[command]]) == 2
    assert capsys.readouterr().err.strip() == f"segtune {command}: The checkpoint {before} cannot be used: {message}"


def test_a_model_that_cannot_be_built_is_refused(before: Path) -> None:
    written = torch.load(before)
    for settings, taps, reason in (
        ({"decoder": {"name": "deeplabv3plus", "channels": 1 << 40}}, {}, ""),
        ({"backbone": {"name": "resnett"}}, {}, " backbone.name=resnett: neither segtune nor timm "),
        ({}, {"low": "layer9"}, " resnet50 has no layer 'layer9'."),
        ({}, {"other": "layer1"}, " The decoder deeplabv3plus reads the taps low, high; got low, high, other."),
    ):
        torch.save(written | {"settings": SETTINGS | settings, "taps": written["taps"] | taps}, before)
        with pytest.raises(UserError) as error:
            Checkpoint.load(before).rebuild()
        assert str(error.value).startswith(
            f"The checkpoint {before} cannot be used: the model that it describes cannot be built.{reason}"
        )


def test_names_that_the_model_has_not_are_refused(before: Path) -> None:
    written = torch.load(before)
    written["weights"]["new"].append("backbone.layer7")
    written["state"] = written["state"] | {"frozen": {"backbone.layer8.weight": "0"}}
    torch.save(written, before)
    with pytest.raises(UserError) as error:
        Checkpoint.load(before).rebuild()
    assert str(error.value) == (
        f"The checkpoint {before} cannot be used: the model that it describes has no weights.new: backbone.layer7, "
        "state.frozen: backbone.layer8.weight."
    )


def test_settings_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    settings = dict(SETTINGS)
    settings["data"] = settings
    torch.save(content(settings=settings), tmp_path / "best.pt")
    assert refused(tmp_path / "best.pt").startswith("The settings in the checkpoint FILE cannot be used. ")


def test_settings_that_hold_tensors_are_refused(tmp_path: Path) -> None:
    """Where any value may stand, as in the arguments of a transform, they could not be compared with others."""
    augment = {"transforms": {"RandomBrightnessContrast": {"brightness_limit": torch.zeros(2)}}}
    torch.save(content(settings=SETTINGS | {"augment": augment}), tmp_path / "best.pt")
    assert refused(tmp_path / "best.pt") == (
        "The settings in the checkpoint FILE cannot be used. They hold something else than numbers, text, and lists of "
        "these by name."
    )


def test_the_best_checkpoint_of_a_run_folder_is_taken_and_said(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = before.parent / "run"
    (run / "checkpoints").mkdir(parents=True)
    best = run / "checkpoints" / "best.pt"
    before.rename(best)
    for folder in (run, run / "checkpoints"):
        assert Checkpoint.load(folder).name == str(best)
        assert capsys.readouterr().err == f"checkpoint={folder} is a folder: taking {best}.\n"
    best.rename(best.with_name("last.pt"))
    assert refused(run) == (
        "checkpoint=FILE is a folder without a best.pt: no epoch of this run is finished. Resume it, or name "
        "FILE/checkpoints/last.pt."
    )
    (run / "checkpoints" / "last.pt").rename(best)
    assert refused(before.parent) == (
        f"checkpoint=FILE is a folder without a best.pt. Name one of the files below it: {best}.".replace(
            str(before.parent), "FILE"
        )
    )


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The schemas that are parsed from here on, in whatever module."""
    schemas: list[type] = []

    def counted(schema: type, *values: Any) -> Any:
        schemas.append(schema)
        return parse(schema, *values)

    extras = ("mlflow", "wandb")  # whose packages may be missing
    found = pkgutil.walk_packages(segtune.__path__, "segtune.")
    names = [module.name for module in found if not module.name.endswith(extras)]
    for module in map(importlib.import_module, names):
        if getattr(module, "parse", None) is parse:
            monkeypatch.setattr(module, "parse", counted)
    return schemas


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for kind, shape in {"images": (40, 50, 3), "masks": (40, 50)}.items():
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for name in ("a", "b", "c"):
            values = np.random.default_rng(ord(name)).integers(0, 2, shape)
            cv2.imwrite(str(tmp_path / "photos" / kind / f"{name}.png"), (255 * values).astype(np.uint8))
    for name, split in {"a": "train", "b": "val", "c": "test"}.items():
        (tmp_path / "photos" / f"{split}.txt").write_text(name)
    return tmp_path / "photos"


@pytest.mark.parametrize("count", [1, 2])
def test_evaluate_parses_the_settings_of_each_file_once(
    before: Path, photos: Path, parsed: list[type], count: int
) -> None:
    names = str(before) if count == 1 else f"[{before},{before}]"
    data = ["data=folder", f"data.root={photos}", f"run_dir={photos.parent / 'out'}"]
    assert main(["evaluate", f"checkpoint={names}", *data, "train.device=cpu", "train.workers=0"]) == 0
    assert parsed.count(Settings) == count


@pytest.mark.slow
def test_predict_and_export_parse_the_settings_once(before: Path, photos: Path, parsed: list[type]) -> None:
    output = f"output={photos.parent / 'out'}"
    assert main(["predict", f"checkpoint={before}", f"input={photos}/images", output, "train.device=cpu"]) == 0
    assert parsed.count(Settings) == 1
    assert main(["export", f"checkpoint={before}", "format=torch", output + ".pt2"]) == 0
    assert parsed.count(Settings) == 2
    segtune.load(before, device="cpu")
    assert parsed.count(Settings) == 3


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    built: BuiltModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, checkpoint = tmp_path / "last.pt", Checkpoint.of(built, parse(Settings, SETTINGS))
    checkpoint.save(path)
    before = path.read_bytes()

    def full(_: object, file: BinaryIO) -> None:
        file.write(b"half a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError) as error:
        checkpoint.save(path)
    assert str(error.value) == (
        f"Cannot write {path}: the disk is full (No space left on device): free some space, or write elsewhere.\n"
        "The old file is untouched."
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "best.pt")
    with pytest.raises(
        UserError, match=re.escape(f"No checkpoint at {tmp_path / 'bst.pt'}. There are: {tmp_path / 'best.pt'}.")
    ):
        Checkpoint.load(tmp_path / "bst.pt")
    with pytest.raises(UserError, match=r"Expected a file such as RUN/checkpoints/best\.pt\."):
        Checkpoint.load(tmp_path / "nowhere" / "best.pt")


@pytest.mark.parametrize("damage", ["text", "empty", "truncated"])
def test_an_unreadable_checkpoint_is_said_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "best.pt"
    torch.save(content(), path)
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello, not a checkpoint", "empty": b"", "truncated": whole[: len(whole) // 2]}[damage])
    assert refused(path).startswith("Cannot read the checkpoint FILE: ")


@pytest.mark.parametrize(
    ("other", "inside"),
    [
        ({"state_dict": {}, "epoch": 3}, "state_dict, epoch"),
        ({"model": {}}, "model"),
        ({"settings": {}}, "settings"),
        ([1, 2], "a list"),
    ],
)
def test_another_programs_file_is_refused(tmp_path: Path, other: Any, inside: str) -> None:
    torch.save(other, tmp_path / "other.pt")
    assert refused(tmp_path / "other.pt") == (
        f"FILE is not a segtune checkpoint: it lacks the entries 'settings' and 'model'; it holds {inside}. "
        "To train from its tensors: train restore.checkpoint=PATH, or backbone.weights=PATH."
    )


@pytest.mark.parametrize("number", [1, 99, None, 2.0, "2"])
def test_another_format_is_refused(tmp_path: Path, number: Any) -> None:
    torch.save(content(format=number), tmp_path / "new.pt")
    assert refused(tmp_path / "new.pt") == (
        f"FILE has checkpoint format {number}; this version of segtune reads formats 2 and 3."
    )


WEIGHTS = "the 'source' of the weights and a list of what is 'new'."


@pytest.mark.parametrize(
    ("entry", "came", "expected"),
    [
        ("taps", None, "it lacks the entry 'taps', the tapped layer of each role."),
        ("weights", None, f"it lacks the entry 'weights', {WEIGHTS}"),
        ("settings", [1], "entry 'settings': got list; expected the settings by name."),
        (
            "taps",
            {"low": 4, "high": "a"},
            "entry 'taps': got a dict of int, str; expected the tapped layer of each role.",
        ),
        ("taps", ("low", "high"), "entry 'taps': got tuple; expected the tapped layer of each role."),
        (
            "weights",
            "none",
            f"entry 'weights': got str; expected {WEIGHTS}",
        ),
        (
            "weights",
            {"source": None},
            f"entry 'weights': got a dict of NoneType; expected {WEIGHTS}",
        ),
        (
            "weights",
            {"source": 1, "new": []},
            f"entry 'weights': got a dict of int, list; expected {WEIGHTS}",
        ),
        ("model", {"a": 1.0}, "entry 'model': got a dict of float; expected the tensors by name."),
        ("model", torch.ones(2), "entry 'model': got Tensor; expected the tensors by name."),
        ("state", 3, "entry 'state': got int; expected the run's state by name."),
        ("movers", [], "entry 'movers': got list; expected the states of optimizer, schedule and scaler by name."),
    ],
)
def test_entries_that_cannot_be_used(tmp_path: Path, entry: str, came: Any, expected: str) -> None:
    written = content() if came is None else content(**{entry: came})
    if came is None:
        del written[entry]
    torch.save(written, tmp_path / "best.pt")
    assert refused(tmp_path / "best.pt") == f"The checkpoint FILE cannot be used: {expected}"


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    torch.save(content(settings=SETTINGS | {"seed": "x", "sede": 1}), tmp_path / "best.pt")
    assert refused(tmp_path / "best.pt") == (
        "The settings in the checkpoint FILE cannot be used. 2 settings are wrong:\n"
        "  sede: there is no such setting. Did you mean seed?\n"
        "  seed: got 'x'; expected: a valid integer."
    )


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_checkpoint_with_code_runs_nothing_and_is_refused(
    tmp_path: Path, writer: Callable[[Any, Path], object]
) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    writer(content(extra=Payload(target)), path)
    with pytest.raises(UserError, match="Cannot read the checkpoint"):
        Checkpoint.load(path)
    assert not target.exists()
