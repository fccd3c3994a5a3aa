"""A run that keeps features ends with the same bits as one that computes them anew, whatever happens to them."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

from segtune.__main__ import main
from segtune.commands import train as commands
from segtune.config.cache_settings import CacheSettings
from segtune.config.data_settings import AugmentSettings
from segtune.config.schema import Settings
from segtune.errors import Interrupted
from segtune.models import build
from segtune.models.checkpoint import Checkpoint
from segtune.models.pretrained import LoadedWeights
from segtune.runtime import distributed
from segtune.training import epoch, feature_cache, feature_folders, loop
from segtune.training.feature_cache import choose_store, feature_source, transfer, views_of
from segtune.training.feature_form import FeatureForm
from segtune.training.feature_store import FolderStore, MemoryStore
from segtune.training.features import FeatureSource
from segtune.training.phases import Phase
from segtune.training.state import Run
from tests.conftest import CONF, slow
from tests.training.conftest import same, settings, weights_of

pytestmark = [pytest.mark.trains, pytest.mark.usefixtures("quick", "without_reports", "pretrained")]

PHASES: dict[str, dict[str, Any]] = {
    "head": {"backbone": 0, "epochs": 3, "lr": 1e-3},
    "deep": {"backbone": ["layer1.2.conv2"], "epochs": 2, "lr": 1e-3},
    "all": {"epochs": 1, "lr": 1e-4},
}


@pytest.fixture(scope="module")
def pretrained() -> Iterator[None]:
    """Let the network's random weights count as pretrained, so that they may be frozen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_weights", lambda *_, **__: LoadedWeights("a file"))
        yield


def chosen(root: Path, folder: Path, mode: str, *, plain: bool = False, batch_size: int = 2, **cache: Any) -> Settings:
    """Return settings in fp32, without augmentation if `plain`, else with two views."""
    given = settings(root, PHASES, precision="fp32", batch_size=batch_size)
    given = replace(given, cache=CacheSettings(mode, 2, folder=str(folder), **cache))
    return replace(given, augment=AugmentSettings()) if plain else given


def test_the_channel_of_masks_is_part_of_a_view(tmp_path: Path) -> None:
    base = chosen(tmp_path, tmp_path, "disk")
    other = replace(base, data=replace(base.data, mask_channel="alpha"))
    for validation in (False, True):
        assert views_of(other, validation=validation) != views_of(base, validation=validation)


@pytest.fixture(scope="module")
def straight(discs: Path, tmp_path_factory: pytest.TempPathFactory, quick: None, without_reports: None) -> Path:
    """A run with two views of each image, all computed when their turn comes."""
    place = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "load_weights", lambda *_, **__: LoadedWeights("a file"))
        commands.train(chosen(discs, place / "cache", "auto", limit_gb=1e-9), place / "run")
    assert not (place / "cache").exists()
    return place / "run"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of images in the batches that went through the frozen part, but for those of the estimate."""
    found: list[int] = []
    through = FeatureForm.through

    def counted(form: FeatureForm, model: Any, images: Any) -> Any:
        found.append(len(images))
        return through(form, model, images)

    monkeypatch.setattr(FeatureForm, "through", counted)
    monkeypatch.setattr(feature_cache, "_measure", lambda *_: ({"a": torch.zeros(250)}, 10.0))  # so auto keeps it
    return found


def same_end(one: Path, other: Path) -> bool:
    equal = all(same(weights_of(one, name), weights_of(other, name)) for name in ("last.pt", "best.pt"))
    return equal and (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


@pytest.mark.parametrize("mode", ["disk", slow("memory"), slow("auto")])
def test_without_augmentation_kept_features_change_no_bit(
    mode: str, discs: Path, tmp_path: Path, computed: list[int]
) -> None:
    """In a phase behind the backbone, in one that begins inside a block, and in one without a frozen part."""
    whole = [chosen(discs, tmp_path / "cache", each, plain=True, batch_size=5) for each in ("off", mode)]
    commands.train(whole[0], tmp_path / "off")
    assert computed == []
    commands.train(whole[1], tmp_path / mode)
    assert sum(computed) == 2 * (5 + 3)  # each of the images for training and validation once in both phases
    assert same_end(tmp_path / "off", tmp_path / mode)
    summary = json.loads((tmp_path / mode / "summary.json").read_text(encoding="utf-8"))
    state = Checkpoint.load(tmp_path / mode / "checkpoints" / "last.pt").state
    assert state.cache_seconds > 0
    assert summary["cache_seconds"] == round(state.cache_seconds, 1)
    assert summary["images_per_second"] > 0
    assert 0 < state.wait_seconds < state.train_seconds
    assert summary["wait_seconds"] == round(state.wait_seconds, 1)


@pytest.mark.slow
def test_crops_are_kept_and_tiles_are_not(discs: Path, tmp_path: Path, computed: list[int]) -> None:
    """Crops are views as others are; what validation sees in tiles is computed in every epoch, from the images."""
    given = chosen(discs, tmp_path / "cache", "disk", batch_size=5)
    given = replace(given, data=replace(given.data, eval_tile=128))
    given = replace(given, augment=AugmentSettings({"object_fraction": 0.5}))
    commands.train(given, tmp_path / "disk")
    assert sum(computed) == 2 * 2 * 5  # two views of each training image, in both phases with a frozen part
    assert {each.facts["of"] for each in feature_folders.kept(tmp_path / "cache")} == {"training"}
    memory = replace(given, cache=replace(given.cache, mode="memory"))
    commands.train(memory, tmp_path / "memory")
    assert same_end(tmp_path / "disk", tmp_path / "memory")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["disk", slow("memory")])
def test_views_are_kept_as_they_are_computed(
    mode: str, straight: Path, discs: Path, tmp_path: Path, computed: list[int]
) -> None:
    commands.train(chosen(discs, tmp_path / "cache", mode), tmp_path / "run")
    assert same_end(straight, tmp_path / "run")
    assert sum(computed) == 2 * (2 * 5 + 3)  # two views in the first two epochs of each phase


@pytest.mark.slow
def test_a_killed_run_goes_on_although_its_features_are_gone(
    straight: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_step, made = epoch.take_step, 0

    def die(*arguments: Any) -> None:
        nonlocal made
        one_step(*arguments)
        made += 1
        if made == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt

    given = chosen(discs, tmp_path / "cache", "disk")
    with monkeypatch.context() as patch:
        patch.setattr(epoch, "take_step", die)
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            commands.train(given, tmp_path / "run")
    shutil.rmtree(tmp_path / "cache")
    commands.train(replace(given, resume=str(tmp_path / "run")), tmp_path / "run")
    assert same_end(straight, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["damaged", "removed", "full"])
def test_features_that_are_lost_are_computed_again(
    trouble: str, straight: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write, read, count = FolderStore.write, FolderStore.read, 0

    def troubled_write(store: FolderStore, name: str, record: Any) -> None:
        nonlocal count
        count += 1
        if trouble == "full" and count > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(store, name, record)
        if trouble == "damaged" and count % 3 == 0:
            path = store.folder / f"{name}.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"\x77")

    def troubled_read(store: FolderStore, name: str) -> Any:
        if trouble == "removed" and len(store.checked) % 2:
            shutil.rmtree(store.folder, ignore_errors=True)
        return read(store, name)

    monkeypatch.setattr(FolderStore, "write", troubled_write)
    monkeypatch.setattr(FolderStore, "read", troubled_read)
    commands.train(chosen(discs, tmp_path / "cache", "disk"), tmp_path / "run")
    assert same_end(straight, tmp_path / "run")
    said = " ".join("".join(capsys.readouterr()).split())
    assert ("Features are no longer kept: [Errno 28] No space left on device." in said) is (trouble == "full")


@pytest.mark.slow
def test_runs_share_what_is_the_same_and_nothing_else(discs: Path, tmp_path: Path, computed: list[int]) -> None:
    """Other seeds share all of it; one other pixel is one other image; another augmentation shares no view."""
    data = tmp_path / "data"
    shutil.copytree(discs, data)

    def images_of(given: Settings, name: str) -> int:
        computed.clear()
        commands.train(given, tmp_path / name)
        return sum(computed)

    first = chosen(data, tmp_path / "cache", "disk")
    assert images_of(first, "first") == 2 * (2 * 5 + 3)
    assert images_of(replace(first, seed=5), "seed") == 0
    photo = cv2.imread(str(data / "images" / "disc0.png"))
    photo[0, 0, 0] ^= 1
    cv2.imwrite(str(data / "images" / "disc0.png"), photo)
    assert images_of(first, "pixel") == 2 * 2
    mask = cv2.imread(str(data / "masks" / "disc6.png"), cv2.IMREAD_GRAYSCALE)
    mask[0, 0] ^= 255
    cv2.imwrite(str(data / "masks" / "disc6.png"), mask)
    assert images_of(first, "mask") == 2 * 2  # with the other image of its batch
    augment = AugmentSettings(transforms={"HorizontalFlip": {"p": 0.51}})
    assert images_of(replace(first, augment=augment), "augment") == 2 * 2 * 5
    assert images_of(replace(first, cache=replace(first.cache, seed=1)), "views") == 2 * 2 * 5


def test_old_runs_keep_drawing_new_views(discs: Path) -> None:
    assert settings(discs).cache.mode == "off"


def test_where_features_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(needed: int, uses: float = 2, **cache: Any) -> tuple[type, str]:
        store, why = choose_store(CacheSettings(folder=str(tmp_path / "c"), **cache), needed, uses, lambda: "name", {})
        return type(store), why

    nothing = type(None)
    assert choose(1000, 1, mode="auto") == (nothing, "no view of an image comes twice")
    assert choose(1000, 1, mode="disk") == (FolderStore, f"in {tmp_path / 'c'}")
    assert choose(1000, mode="auto") == (FolderStore, f"in {tmp_path / 'c'}")
    assert choose(1000, mode="memory") == (MemoryStore, "in memory")
    large = "they would take 3.0 GB, more than cache.limit_gb=2"
    for mode in ("auto", "disk", "memory"):
        assert choose(3 * 10**9, mode=mode, limit_gb=2) == (nothing, large)
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 1999)
    full = type("Usage", (), {"free": 0})
    monkeypatch.setattr(feature_folders.shutil, "disk_usage", lambda _: full)
    assert choose(1000, mode="disk") == (nothing, f"there is no room for 0.0 GB in {tmp_path / 'c'}")
    assert choose(1000, mode="auto") == (nothing, "they would take 0.0 GB, more than half of the free memory")
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 2000)
    assert choose(1000, mode="auto") == (MemoryStore, "in memory")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert choose(1000, mode="memory")[0] is nothing  # each process has its own
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    (tmp_path / "c").rename(tmp_path / "d")
    (tmp_path / "c").touch()
    store, why = choose(1000, mode="disk")
    assert store is nothing
    assert why.startswith(f"{tmp_path / 'c'} cannot be written: ")


def test_without_a_home_folder_features_are_not_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    store, why = choose_store(CacheSettings("disk"), 1000, 2, lambda: "name", {})
    assert store is None
    assert why == "~/.cache/segtune/features: there is no home folder of ~. Set cache.folder or HOME"
    assert choose_store(CacheSettings("auto"), 1000, 2, lambda: "name", {})[1] == "in memory"


def test_what_lies_in_a_read_only_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose() -> tuple[FolderStore | MemoryStore | None, str]:
        return choose_store(CacheSettings("disk", folder=str(tmp_path)), 10, 2, lambda: "name", {})

    record = {"mask": torch.ones(3)}
    store, _ = choose()
    assert store
    store.write("a-0", record)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for owner, name in (Path, "write_bytes"), (Path, "replace"), (Path, "unlink"), (os, "utime"), (os, "unlink"):
        monkeypatch.setattr(owner, name, refuse)
    store, why = choose()
    assert why == f"in {tmp_path}"
    assert store
    assert list(store.names()) == ["a-0"]
    found = store.read("a-0")
    assert found is not None
    assert torch.equal(found["mask"], record["mask"])
    assert transfer(store, record) == (0, 0)
    other, why = choose_store(CacheSettings("disk", folder=str(tmp_path)), 10, 2, lambda: "other", {})
    assert other is None
    assert why == f"{tmp_path} cannot be written: Read-only file system"


def test_auto_does_not_keep_what_is_computed_sooner_than_read(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase of three epochs takes each of two views 1.5 times: half an image is saved for two writes, three reads."""
    found: dict[float, FeatureSource] = {}

    def look(run: Run, phase: Phase) -> None:
        for seconds in 0.11, 0.13:  # 5 images: 5 * (2 + 3) * 0.12 = 5 * (3 - 2) * 0.6
            monkeypatch.setattr(feature_cache, "transfer", lambda *_, each=seconds: (each, each))
            source = feature_source(run, phase)
            assert source
            found[seconds] = source
        raise Interrupted

    monkeypatch.setattr(feature_cache, "_measure", lambda *_: ({"a": torch.zeros(250)}, 0.6))
    monkeypatch.setattr(loop, "feature_source", look)
    with pytest.raises(Interrupted):
        commands.train(chosen(discs, tmp_path / "cache", "auto"), tmp_path / "run")
    assert isinstance(found[0.11].loader.store, FolderStore)
    assert found[0.11].text.endswith("; saves about 0 s")
    assert found[0.13].loader.store is None
    assert found[0.13].text.endswith("not kept: to write and read them takes about 3.2 s, to compute them 3.0 s")


def test_what_trains_are_the_layers_that_several_gpus_share(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On several GPUs the wrapping replaces BatchNorm layers; the split network must not go on with the old ones."""

    def wrap(model: nn.Module, *_: Any) -> nn.Module:
        convert_sync_batchnorm(model)
        return model

    def look(run: Run, *_: Any) -> None:
        split = run.built.model.split
        assert split
        for part in split.frozen, split.trained:
            assert not any(type(module) in (nn.BatchNorm2d, BatchNormAct2d) for module in part.modules())
        found = {name for name, module in split.trained.named_modules() if isinstance(module, nn.SyncBatchNorm)}
        assert found
        assert all(split.trained.get_submodule(name) is run.built.model.backbone.get_submodule(name) for name in found)
        raise Interrupted

    monkeypatch.setattr(distributed, "wrap", wrap)
    monkeypatch.setattr(loop, "train_epoch", look)
    given = settings(discs, {"deep": PHASES["deep"]}, precision="fp32")
    given = replace(given, cache=CacheSettings("memory"))
    with pytest.raises(Interrupted):
        commands.train(given, tmp_path / "run")


@pytest.mark.slow
def test_kept_features_change_no_bit_in_any_phase_of_progressive(
    discs: Path, tmp_path: Path, computed: list[int]
) -> None:
    """The cut moves from behind the backbone to its first block, and with it what is kept."""
    phases = yaml.safe_load((CONF / "freeze" / "progressive.yaml").read_text(encoding="utf-8"))["phases"]
    phases = {name: {**phase, "epochs": 2} for name, phase in phases.items()}
    given = settings(discs, phases, precision="fp32", batch_size=5)
    given = replace(given, augment=AugmentSettings(), taps={"low": "layer1.0.act2", "high": "layer3.1.act2"})
    for mode in "off", "disk":
        kept_there = CacheSettings(mode, folder=str(tmp_path / "cache"))
        commands.train(replace(given, cache=kept_there), tmp_path / mode)
    assert same_end(tmp_path / "off", tmp_path / "disk")
    assert len(phases) == 5
    assert sum(computed) == 4 * (5 + 3)
    found = {each.facts["frozen_to"] for each in feature_folders.kept(tmp_path / "cache")}
    assert found == {"layer3.1.act2", "layer2.3.act3", "layer1.2.act3", "maxpool"}


@pytest.mark.slow
def test_the_jobs_of_a_sweep_share_their_features(
    discs: Path, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("image_size=64", "backbone=resnet50", "backbone.weights=x.pt", "taps.low=layer1.0.act2")
    more = ("taps.high=layer1.2.act2", "decoder.channels=8", "freeze=head_only", "epochs=3", "train.workers=0")
    kept_there = ("cache.mode=disk", "cache.views=2", "cache.folder=cache", "train.device=cpu")
    sweep = ("-m", "seed=0,1", "lr=1e-3,1e-4", "hydra.sweep.dir=jobs")
    assert main(["train", f"data.root={discs}", *small, *more, *kept_there, *sweep]) == 0
    assert sum(computed) == 2 * 5 + 3  # of four jobs the first computes both views, and the validation images
    rows = {path.read_text(encoding="utf-8") for path in Path("jobs").glob("*/metrics.csv")}
    assert len(rows) == 4


def test_void_is_in_a_name_only_where_it_is_set(discs: Path, tmp_path: Path) -> None:
    """So that what earlier versions kept is found."""
    base = chosen(discs, tmp_path, "disk")
    assert views_of(base) == {
        **{"foreground": "auto", "invert": False, "max_value": None},
        **{"size": (64, 64), "seed": base.cache.seed},
        "augment": {"crop": None, "transforms": {"HorizontalFlip": {"p": 0.5}}},
    }
    ignoring = replace(base, data=replace(base.data, ignore=[255]))
    assert views_of(ignoring) == views_of(base) | {"ignore": [255]}
    assert views_of(ignoring, validation=True) == views_of(base, validation=True) | {"ignore": [255]}
    outside = replace(base, augment=replace(base.augment, border="void"))
    assert views_of(outside)["augment"] == views_of(base)["augment"] | {"border": "void"}
