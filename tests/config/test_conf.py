"""Every YAML file under conf/ composes, validates, and explains itself."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from segtune.cli.compose import OPEN
from segtune.cli.help import HYDRA_HELP, config_folder, settings_help
from segtune.config.command_settings import EvaluateSettings, PlanSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.config.training_settings import PhaseSettings

ROOT = config_folder()
CHOICES = sorted(f"{path.parent.relative_to(ROOT)}={path.stem}" for path in ROOT.glob("*/*.yaml"))


def composed(command: str, *overrides: str) -> dict:
    with initialize_config_dir(str(ROOT), version_base="1.3"):
        config = compose(command, overrides=list(overrides))
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_file_composes_and_validates(choice: str) -> None:
    group, _, name = choice.partition("=")
    if group == "taps":
        backbone, decoder = name.split("_")
        overrides = [f"backbone={backbone}", f"decoder={decoder}"]
    else:
        overrides = [choice]
    if choice in ("data=folder", "experiment=fcn_paper"):
        overrides.append("data.root=photos")
    if choice == "freeze=staged":
        overrides.append("decoder=fcn8s")
    settings = parse(Settings, composed("train", *overrides))
    if group == "taps":
        assert composed("train", *overrides)["taps"] == OmegaConf.to_container(
            OmegaConf.load(ROOT / "taps" / f"{name}.yaml")
        )
    assert settings.freeze.phases


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "hydra" / "launcher").glob("*.yaml")))
def test_every_launcher_composes(name: str) -> None:
    """With the plugin's own settings below, where it is installed: these know the names."""
    with initialize_config_dir(str(ROOT), version_base="1.3"):
        config = compose("train", overrides=[f"hydra/launcher={name}"], return_hydra_config=True)
    assert config.hydra.launcher._target_.startswith(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher.")
    assert name in HYDRA_HELP


def test_the_eight_pairs_have_tap_maps() -> None:
    pairs = {f"{b}_{d}" for b in ("vgg16", "resnet50", "xception", "timm") for d in ("fcn8s", "deeplabv3plus")}
    assert {path.stem for path in (ROOT / "taps").glob("*.yaml")} == pairs


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("none", ["all"]),
        ("head_only", ["head"]),
        ("two_phase", ["head", "all"]),
        ("progressive", ["head", "deep1", "deep2", "deep3", "all"]),
        ("shallow_frozen", ["deep"]),
        ("discriminative", ["all"]),
        ("staged", ["fcn32s", "fcn16s", "fcn8s"]),
    ],
)
def test_presets_have_the_promised_phases(preset: str, names: list[str]) -> None:
    assert list(composed("train", f"freeze={preset}")["freeze"]["phases"]) == names


def test_phases_can_be_changed_removed_and_added_from_the_command_line() -> None:
    phases = composed(
        "train",
        "freeze.phases.all.epochs=1",
        "~freeze.phases.head",
        "+freeze.phases.late={backbone: 2, epochs: 3, lr: 1.0e-5}",
    )["freeze"]["phases"]
    assert list(phases) == ["all", "late"]
    assert (phases["all"]["epochs"], phases["late"]["backbone"]) == (1, 2)


def test_one_tap_is_overridden_alone() -> None:
    taps = composed("train", "backbone=resnet50", "taps.low=layer2")["taps"]
    assert taps == {"low": "layer2", "high": "conv4_block6_2_relu"}


def test_every_key_of_a_phase_is_explained() -> None:
    text = (ROOT / "freeze" / "two_phase.yaml").read_text(encoding="utf-8")
    assert not [key.name for key in fields(PhaseSettings) if not re.search(rf"\b{key.name}\b", text)]


def test_plan_takes_the_settings_of_a_training() -> None:
    plan, train = composed("plan", "measure=true"), composed("train")
    more = {"details": False, "summary": False, "picture": None, "output": None}
    assert plan == train | {"measure": True} | more
    assert parse(PlanSettings, plan).measure


def test_keys_of_phases_need_no_plus_on_the_command_line() -> None:
    given = ["freeze.phases.head.until=plateau", "restore.rename={a.: b.}", "freeze=none", "+freeze.phases.x={lr: 1}"]
    assert [bool(OPEN.match(each)) for each in given] == [True, True, False, False]


def test_evaluate_composes() -> None:
    settings = parse(EvaluateSettings, composed("evaluate", "checkpoint=best.pt"))
    assert settings.data.split == "test"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_setting_has_a_comment(path: Path) -> None:
    text = path.read_text(encoding="utf-8").split("\nhydra:")[0]
    body = text.split("hydra/hydra_logging: none")[-1]
    group = str(path.parent.relative_to(ROOT))
    if group == "experiment":  # its header explains the whole
        assert body.startswith("# @package _global_\n#")
        return
    bare = [line for line in body.splitlines() if re.match(r" *\w+:.*\S", line) and "#" not in line]
    allowed = r"name: \w+|crop:|transforms:|checkpoint:|data:|train:"
    assert not [line for line in bare if not re.fullmatch(allowed, line.strip())]


def test_help_shows_every_group_and_every_default_setting() -> None:
    text = settings_help("train")
    for path in ROOT.glob("*/"):
        assert path.name == "hydra" or f"\n{path.name}=" in text
    for path in ROOT.glob("*/*.yaml"):
        assert re.search(rf"^{path.parent.name}=.*\b{path.stem}\b", text, flags=re.MULTILINE)
    for name in ("backbone.weights", "taps.low", "train.batch_size", "data.image_size", "optimizer.warmup", "seed"):
        assert re.search(rf"^  {re.escape(name)}: .*#", text, flags=re.MULTILINE), name
