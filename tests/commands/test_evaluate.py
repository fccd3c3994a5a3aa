"""`evaluate`, the end of a training and `report`: numbers against smp, pages in a real browser."""

import csv
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from segtune.__main__ import main
from segtune.commands import train as commands
from segtune.config.data_settings import DataSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.data.dataset import build_dataset
from segtune.data.sources.folder import find_pairs
from segtune.errors import UserError
from segtune.models.checkpoint import Checkpoint
from segtune.models.taps import FeatureInfo
from segtune.reporting import evaluation_report as report

SIDE = 64
pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs on noise, two of them without object; sizes differ."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    names = [f"p{i:02d}" for i in range(16)]
    for i, name in enumerate(names):
        height, width = 70 + i, 90 - i
        mask = np.zeros((height, width), np.uint8)
        if i not in (7, 12):
            cv2.circle(mask, (30 + i, 35), 8 + i, 255, -1)
        photo = rng.integers(0, 120, (height, width, 3), np.uint8)
        photo[mask > 0] = photo[mask > 0] // 2 + np.array((60, 110, 170), np.uint8)
        cv2.imwrite(str(root / "images" / f"{name}.png"), photo)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    for split, part in {"train": names[:6], "val": names[6:10], "test": names[10:]}.items():
        (root / f"{split}.txt").write_text("\n".join(part) + "\n")
    (root / "groups.csv").write_text("name,camera\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate(names)))
    return root


def settings(photos: Path, **more: object) -> Settings:
    values = {
        "backbone": {"name": "resnet50", "weights": "none"},
        "taps": {"low": "layer1.0.act2", "high": "layer1.2.act2"},
        "decoder": {"name": "deeplabv3plus", "channels": 16, "low_channels": 8, "outputs": 2},
        "freeze": {"phases": {"one": {"epochs": 8, "lr": 3e-3}, "two": {"epochs": 2, "lr": 1e-3, "backbone": 1}}},
        "data": {"name": "folder", "root": str(photos), "image_size": SIDE},
        "augment": {},
        "loss": {"name": "dice_bce"},
        "optimizer": {"name": "adamw"},
        "train": {"batch_size": 2, "workers": 0, "samples": 2, "device": "cpu"},
        "checkpoint": {},
    }
    return parse(Settings, values | more)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    commands.train(settings(photos), folder, "python -m segtune train 'a&b'")
    return folder


def evaluate(run: Path, photos: Path, folder: Path, *more: str) -> dict:
    arguments = [f"checkpoint={run}/checkpoints/best.pt", "data=folder", f"data.root={photos}", f"run_dir={folder}"]
    small = ["train.device=cpu", "train.precision=fp32", "train.workers=0", "resamples=200"]
    assert main(["evaluate", *arguments, *small, *more]) == 0
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tested(run: Path, photos: Path) -> tuple[Path, dict]:
    folder = run.parent / "tested"
    more = [f"data.groups={photos}/groups.csv", "data.skin=true"]
    return folder, evaluate(run, photos, folder, *more)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_image.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(run: Path, photos: Path, split: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Predict with PyTorch alone, two outputs by softmax; give the probability at the photo's size, and the truth."""
    checkpoint = Checkpoint.load(run / "checkpoints" / "best.pt")
    model, trained = checkpoint.rebuild().model.eval(), checkpoint.settings
    names = (photos / f"{split}.txt").read_text(encoding="utf-8").split()
    pairs = [pair for pair in find_pairs(DataSettings("folder", str(photos))).pairs if pair.name in names]
    dataset, found = build_dataset(pairs, trained.data, None), []
    for index in range(len(pairs)):
        sample = dataset[0, index]
        with torch.inference_mode():
            features = model.backbone((sample["image"][None].float() - model.mean) / model.std)
            logits = model.decoder(model.scale(features))
        for size in (sample["image"].shape[-2:], sample["truth"].shape):
            logits = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        found.append((logits.softmax(1)[0, 1], sample["truth"].long()))
    return found


def test_the_numbers_are_those_of_smp(run: Path, photos: Path, tested: tuple[Path, dict]) -> None:
    folder, facts = tested
    each = {"dice": smp.metrics.f1_score, "iou": smp.metrics.iou_score}
    each |= {"precision": smp.metrics.precision, "recall": smp.metrics.recall}
    table, stats = rows(folder), []
    for row, (probability, truth) in zip(table, probabilities(run, photos, "test"), strict=True):
        stats.append(smp.metrics.get_stats((probability >= 0.5).long()[None, None], truth[None, None], mode="binary"))
        if truth.any():
            for name, score in each.items():
                assert float(row[name]) == pytest.approx(score(*stats[-1], zero_division=0).item(), abs=1e-5)
    assert facts["dice_mean"] > 0.3  # or nothing would have been compared
    together = [torch.cat(column) for column in zip(*stats, strict=True)]
    pooled = {"dice_pooled": "dice", "iou_pooled": "iou", "precision": "precision", "recall": "recall"}
    for key, name in pooled.items():
        assert facts[key] == pytest.approx(each[name](*together, reduction="micro").item(), abs=1e-6)
    assert facts["images"] == 6
    assert facts["empty_pictures"]["images"] == 1


@pytest.mark.slow
def test_void_is_left_out_of_every_number(run: Path, photos: Path, tmp_path: Path) -> None:
    root = shutil.copytree(photos, tmp_path / "void")
    for path in sorted((root / "masks").iterdir()):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[:, 40:70] = 100
        cv2.imwrite(str(path), mask)
    cv2.imwrite(str(root / "masks" / "p10.png"), np.full((80, 80), 100, np.uint8))  # wholly void
    facts = evaluate(run, root, tmp_path / "out", "data.ignore=100", "tune=false")
    cells = np.zeros(3)
    dices = []
    for probability, truth in probabilities(run, photos, "test")[1:]:
        left = torch.ones_like(truth, dtype=torch.bool)
        left[:, 40:70] = False
        predicted, there = probability[left] >= 0.5, truth[left] == 1
        found = [int((predicted & there).sum()), int((predicted & ~there).sum()), int((~predicted & there).sum())]
        dices.append(2 * found[0] / (2 * found[0] + found[1] + found[2]) if sum(found) else 1.0)
        cells += found
    assert facts["dice_mean"] == pytest.approx(np.mean(dices), abs=1e-3)
    assert facts["dice_pooled"] == pytest.approx(2 * cells[0] / (2 * cells[0] + cells[1] + cells[2]), abs=1e-3)
    assert (facts["images"], facts["void"]["images"], facts["ignore"]) == (5, 1, [100])
    table = rows(tmp_path / "out")
    assert [int(row["void"]) for row in table] == [80 * 80, *(30 * (70 + i) for i in range(11, 16))]
    assert np.isnan(float(table[0]["dice"]))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "void, which counts nowhere" in page
    assert "1 of the images are wholly void, and in no mean" in page


def test_the_threshold_chosen_on_val_gives_on_test_what_it_is_said_to(
    run: Path, photos: Path, tested: tuple[Path, dict], tmp_path: Path
) -> None:
    tuned = tested[1]["tuned"]
    assert tuned["chosen_on"] == "val"

    predicted = {split: probabilities(run, photos, split) for split in ("val", "test")}

    def dice(split: str, threshold: float) -> float:
        found = []
        for probability, truth in predicted[split]:
            chosen = probability >= threshold
            both = (chosen & (truth > 0)).sum().item()
            found.append(2 * both / (chosen.sum() + truth.sum()).item() if chosen.any() or truth.any() else 1.0)
        return float(np.mean(found))

    assert dice("val", tuned["threshold"]) == pytest.approx(tuned["dice_mean_there"], abs=1e-5)
    assert tuned["dice_mean_there"] == pytest.approx(max(dice("val", k / 200) for k in range(1, 200)), abs=1e-5)
    again = evaluate(run, photos, tmp_path / "again", f"train.threshold={tuned['threshold']}", "tune=false")
    assert again["dice_mean"] == pytest.approx(tuned["dice_mean"], abs=1e-5)
    assert again["tuned"]["chosen_on"] == "the same images"


def test_groups_of_a_table_and_of_skin_tone(tested: tuple[Path, dict]) -> None:
    folder, facts = tested
    assert facts["groups"].keys() == {"object size", "skin tone", "camera"}
    for name, groups in facts["groups"].items():
        for group in groups:
            inside = [float(row["dice"]) for row in rows(folder) if row[f"group: {name}"] == group["group"]]
            assert len(inside) == group["images"]
            assert np.mean(inside) == pytest.approx(group["dice_mean"], abs=1e-5)
    assert [group["images"] for group in facts["groups"]["camera"]] == [3, 3]
    assert sum(group["images"] for group in facts["groups"]["skin tone"]) == 5  # one picture has no skin


def test_a_wrong_table_is_found_before_the_training(photos: Path, tmp_path: Path) -> None:
    data = {"name": "folder", "root": str(photos), "image_size": SIDE, "groups": str(tmp_path / "gone.csv")}
    with pytest.raises(UserError, match=r"data.groups=.*gone.csv cannot be read"):
        commands.train(settings(photos, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_of_empty_masks_that_do_not_count(run: Path, photos: Path, tmp_path: Path, split: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("images", "masks"):
        (tmp_path / "photos" / name).symlink_to(photos / name)
    for name in ("train", "val", "test"):
        names = ["p07", "p12"] if name == split else {"train": ["p00", "p01"], "val": ["p06"], "test": ["p10"]}[name]
        (tmp_path / "photos" / f"{name}.txt").write_text("\n".join(names))
    facts = evaluate(run, tmp_path / "photos", tmp_path / "empty", "train.empty=skip")
    assert (facts["dice_mean"] is None) == (split == "test")
    assert (facts["tuned"] is None) == (split == "val")
    assert (tmp_path / "empty" / "report.html").is_file()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["evaluate", *arguments]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_evaluated(run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, data = f"{run}/checkpoints/best.pt", ["data=folder", f"data.root={photos}"]
    assert f"run_dir={run} is the folder of a training run, whose report would be overwritten." in refused(
        capsys, f"checkpoint={best}", *data, f"run_dir={run}"
    )
    assert "expected: one file, or two to compare: [A,B]." in refused(capsys, f"checkpoint=[{best}]", *data)
    content = torch.load(best)
    content["settings"]["data"]["invert"] = True
    torch.save(content, tmp_path / "other.pt")
    message = refused(capsys, f"checkpoint=[{best},{tmp_path}/other.pt]", *data)
    assert (
        "The checkpoints were trained for different foregrounds: data.foreground=auto data.invert=False and" in message
    )


@pytest.mark.parametrize(("auto", "named"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_a_model_that_overflows_is_not_scored(
    run: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    auto: str,
    named: str,
) -> None:
    monkeypatch.setenv("SEGTUNE_AUTO_PRECISION", auto)
    content = torch.load(run / "checkpoints" / "best.pt")
    content["model"]["decoder.classifier.weight"][:] = 3e38  # finite: NaN itself is refused with the file
    torch.save(content, tmp_path / "huge.pt")
    arguments = [f"checkpoint={tmp_path}/huge.pt", "data=folder", f"data.root={photos}", f"run_dir={tmp_path}/out"]
    assert main(["evaluate", *arguments, "train.device=cpu", "train.workers=0"]) == 1
    assert re.search(rf"The model returns (NaN|infinity) for p10 in {named}", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_pictures_the_model_was_trained_on_are_named(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, photos, tmp_path / "all", "data.split=all")
    out = capsys.readouterr().out
    assert "was trained on 6 of these 16 images (p00, p01, p02, p03, p04 and 1 more)" in out
    assert "is the best epoch by its scores on 4 of these 16 images (p06, p07, p08, p09): its scores are" in out
    for part in ("images", "masks"):  # a copy of one, under another name, without lists
        (tmp_path / "other" / part).mkdir(parents=True)
        for old, new in (("p01", "new"), ("p10", "p02")):
            shutil.copy(photos / part / f"{old}.png", tmp_path / "other" / part / f"{new}.png")
    evaluate(run, tmp_path / "other", tmp_path / "copy", "data.split=all")
    out = capsys.readouterr().out
    assert "was trained on 1 of these 2 images (new): its scores are optimistically biased" in out
    assert "best epoch by" not in out


def test_a_checkpoint_of_an_earlier_version_knows_its_images_by_name(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(run / "checkpoints" / "best.pt")
    del content["data"]
    torch.save(content, tmp_path / "old.pt")
    evaluate(run, photos, tmp_path / "all", f"checkpoint={tmp_path}/old.pt", "data.split=all", "tune=false")
    assert "was trained on 6 of these 16 images (p00, p01, p02, p03, p04 and 1 more)" in capsys.readouterr().out


def test_data_that_are_not_named_are_those_of_the_training_run(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    best = f"checkpoint={run}/checkpoints/best.pt"
    assert main(["evaluate", best, "data.split=val", "run_dir=out", "train.device=cpu", "train.workers=0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"Data: folder {photos}, 16 pairs: images/ with masks/; split by lists (train 6, val 4, test 6)\n"
    )
    assert "\nval: 4 images" in out
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["data"] == str(photos)
    assert not (tmp_path / "data").exists()


def test_data_of_the_training_run_that_are_gone_are_named(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(run / "checkpoints" / "best.pt")
    content["settings"]["data"] |= {"root": str(tmp_path / "gone")}
    torch.save(content, tmp_path / "moved.pt")
    (tmp_path / "photos").mkdir()
    gone = f"{tmp_path}/moved.pt was trained on the data in {tmp_path}/gone, which is not a folder here. "
    assert gone + "Set data.root" in refused(capsys, f"checkpoint={tmp_path}/moved.pt")
    content["settings"]["data"] |= {"name": "portraits"}  # in a folder of the user's
    torch.save(content, tmp_path / "moved.pt")
    assert gone in refused(capsys, f"checkpoint={tmp_path}/moved.pt")
    assert not (tmp_path / "gone").exists()
    two = f"checkpoint=[{run}/checkpoints/best.pt,{tmp_path}/moved.pt]"
    assert (
        f"The checkpoints were trained on different data: {run}/checkpoints/best.pt on {photos} and "
        f"{tmp_path}/moved.pt on {tmp_path}/gone. Set data.root to compare them."
    ) in refused(capsys, two)
    into = f"run_dir={photos}/images/out"
    assert f"{into} is inside the data set" in refused(capsys, f"checkpoint={run}/checkpoints/best.pt", into)


@pytest.mark.slow
def test_two_checkpoints_are_compared_picture_by_picture(run: Path, photos: Path, tmp_path: Path) -> None:
    two = f"checkpoint=[{run}/checkpoints/best.pt,{run}/checkpoints/last.pt]"
    facts = evaluate(run, photos, tmp_path / "two", two)
    alone = evaluate(run, photos, tmp_path / "last", f"checkpoint={run}/checkpoints/last.pt")
    table, theirs = rows(tmp_path / "two"), rows(tmp_path / "last")
    assert [float(row["dice_of_other"]) for row in table] == [float(row["dice"]) for row in theirs]
    differences = [float(row["dice_of_other"]) - float(row["dice"]) for row in table]
    assert facts["compared"]["difference"] == pytest.approx(np.mean(differences), abs=1e-5)
    assert facts["compared"]["dice_mean"] == pytest.approx(alone["dice_mean"])


@pytest.mark.slow
def test_averaging_changes_the_prediction_and_is_said(run: Path, photos: Path, tmp_path: Path) -> None:
    facts = evaluate(run, photos, tmp_path / "tta", "tta.flips=true", "tta.scales=[0.75,1.0]", "tune=false")
    assert facts["tta"] == {"flips": True, "scales": [0.75, 1.0]}
    plain = evaluate(run, photos, tmp_path / "plain", "tune=false")
    assert facts["curves"]["calibration"] != plain["curves"]["calibration"]


def test_a_training_ends_with_the_evaluation_of_its_best_model(run: Path) -> None:
    facts = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert facts["dice_mean"] == summary["val_dice"]
    assert facts["split"] == "val"
    assert [row["name"] for row in rows(run)] == ["p06", "p07", "p08", "p09"]
    assert (run / "config.yaml").read_text(encoding="utf-8").splitlines()[0] == "# python -m segtune train 'a&b'"


def test_an_earlier_evaluation_of_the_same_pictures_is_found(
    tested: tuple[Path, dict], run: Path, photos: Path
) -> None:
    folder = run.parent / "later"
    facts = evaluate(run, photos, folder, "train.threshold=0.9", "tune=false")
    text = (folder / "report.html").read_text(encoding="utf-8")
    before = tested[1]["dice_mean"]
    assert f"{facts['dice_mean'] - before:+.4f} against <b>tested</b> ({before:.4f})" in text
    assert "There is no earlier evaluation" in (tested[0] / "report.html").read_text(encoding="utf-8")


LOOK = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  images: document.images.length, drawings: document.querySelectorAll("svg").length,
  broken: [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length,
  asked: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
  wider: document.documentElement.scrollWidth > innerWidth,
  page: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
}) })</script></body>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("there is no Chromium")

    def open_page(text: str, *flags: str) -> dict:
        """Open a page in a window as wide as a phone (500 pixels is headless Chromium's least)."""
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(text.replace("</body>", LOOK), encoding="utf-8")
        usual = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        usual += ["--enable-logging=stderr", "--window-size=500,900", f"--user-data-dir={folder}/profile"]
        command = [browser, *usual, *flags, "--dump-dom", f"file://{folder}/page.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&gt;", ">"))  # type: ignore[index]
        return found | {"console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}

    return open_page


def check(found: dict, images: int, drawings: int) -> None:
    assert found["images"] == images
    assert found["drawings"] == drawings
    assert found["broken"] == 0
    assert found["asked"] == []
    assert found["console"] == []
    assert not found["wider"]


def test_the_report_of_a_run_in_a_browser(run: Path, browse: Callable[..., dict]) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    check(browse(text), 2 * len(re.findall("<figure>", text)), 6)
    for expected in ("What trained when", "python -m segtune train &#39;a&amp;b&#39;", "layer1.2.act2", "frozen"):
        assert expected in text
    assert len(text) < 5e6


@pytest.mark.slow
def test_the_report_of_an_evaluation_in_a_browser(tested: tuple[Path, dict], browse: Callable[..., dict]) -> None:
    text = (tested[0] / "report.html").read_text(encoding="utf-8")
    check(browse(text), 2 * len(re.findall("<figure>", text)), 7)
    assert "What trained when" not in text
    light, dark = (browse(text, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (1, 0))
    assert (light["page"], dark["page"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
    assert light["ink"] != dark["ink"]


@pytest.mark.slow
def test_the_browser_would_notice(tested: tuple[Path, dict], browse: Callable[..., dict]) -> None:
    bad = "<img src='https://example.invalid/a.png'><script>foo()</script></body>"
    found = browse((tested[0] / "report.html").read_text(encoding="utf-8").replace("</body>", bad))
    assert found["broken"] == 1
    assert found["asked"] == ["https://example.invalid/a.png"]
    assert any("foo is not defined" in line for line in found["console"])


def test_names_are_text_not_html(tested: tuple[Path, dict], tmp_path: Path, browse: Callable[..., dict]) -> None:
    evil = "<script>foo()</script><img src=x>"
    facts = {**tested[1], "data": evil, "groups": {evil: [{**tested[1]["groups"]["camera"][0], "group": evil}]}}
    table = [{"name": evil, "dice": 0.5, "contradicted": 0.0}] * 4
    settings = asdict(Checkpoint.load(tested[1]["checkpoint"]).settings)
    source = report.Source(evil, settings | {"run_dir": evil}, {evil: FeatureInfo(evil, 1, 2)}, None, [])
    before = {
        "name": evil,
        "dice_mean": 0.1,
        "difference": 0.1,
        "interval": [0, 1],
        "better": 1,
        "worse": 1,
        "images": 4,
    }
    report.write_report(tmp_path / "r.html", facts, table, source, before, lambda chosen: _views(chosen, evil))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert evil not in text
    found = browse(text)
    assert (found["console"], found["broken"]) == ([], 0)


def _views(chosen: list[int], name: str):
    from segtune.data.sources.base import Pair
    from segtune.evaluation.predictions import SamplePrediction

    photo, mask = np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), bool)
    for _ in chosen:
        yield Pair(name, Path("a"), Path("b")), SamplePrediction((40, 30), photo, mask, mask, mask.astype(np.float32))


def test_twenty_runs_on_one_page(run: Path, tmp_path: Path, browse: Callable[..., dict]) -> None:
    for number in range(20):
        folder = tmp_path / "sweep" / str(number)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("*.pt", "tensorboard"))
        text = (folder / "config.yaml").read_text(encoding="utf-8").replace("seed: 0", f"seed: {number}")
        (folder / "config.yaml").write_text(text)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        dice = 0.5 + (number * 7 % 20) / 100
        (folder / "summary.json").write_text(json.dumps(summary | {"val_dice": dice, "val_dice_object": dice}))
    odd = {
        "a": ("evaluation.json", '{"split": "val"}'),
        "b": ("summary.json", '{"val_dice": 0.9}'),
        "c": ("config.yaml", ""),
    }
    for name, (file, text) in odd.items():
        shutil.copytree(run, tmp_path / "sweep" / name, ignore=shutil.ignore_patterns("*.pt", "tensorboard"))
        (tmp_path / "sweep" / name / file).write_text(text)
    (tmp_path / "sweep" / "begun" / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "config.yaml", tmp_path / "sweep" / "begun")
    began = time.perf_counter()
    assert main(["report", f"folder={tmp_path}/sweep"]) == 0
    assert time.perf_counter() - began < 20
    text = (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    order = [int(number) for number in re.findall(r'<a href="(\d+)/report.html">', text)]
    assert order == sorted(range(20), key=lambda number: -(number * 7 % 20))
    assert 'title="cache.seed"' in text  # of two settings that differ, since lines pool the runs' own seeds
    assert "<th>run_dir</th>" not in text
    assert "24 runs: 20 finished, 3 not readable, 1 interrupted" in " ".join(text.split())
    check(browse(text), 0, 2)
    assert len(text) < 5e6
    assert all((tmp_path / "sweep" / str(number) / "report.html").stat().st_size < 5e6 for number in range(20))
