"""Help on settings and on Hydra, and Hydra's errors in readable words."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtune.__main__ import COMMANDS, main
from segtune.cli.help import config_folder, readable, settings_help
from tests.cli.conftest import message


def test_help_on_hydra_offers_only_what_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # --info adds one that would outlive this test's output
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    assert main(["plan", "--hydra-help"]) == 0
    out = capsys.readouterr().out
    assert "as in python -m segtune plan [flag" in out
    assert "Hydra's shell completion does not work" in out
    assert "install=bash" not in out
    for flags in (
        ["--cfg", "job", "--resolve", "-p", "freeze"],
        ["-c", "job"],
        ["--info", "defaults"],
        ["-i", "config"],
    ):
        assert main(["plan", *flags]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 5


def test_a_word_that_sets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", "foo") == (
        "segtune train: got foo; expected setting=value. `python -m segtune train --help` lists all."
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_every_setting(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting that Hydra composes by default stands in the help, by its last name."""
    assert main([command, "--cfg", "job"]) == 0
    composed = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))
    shown = settings_help(command)

    def names(values: dict[str, Any]) -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict) and value:
                yield from names(value)
            else:
                yield name

    assert not [name for name in names(composed) if f"{name}:" not in shown]


def test_the_help_marks_defaults_and_keeps_comments() -> None:
    lines = settings_help("train").splitlines()
    assert "backbone=resnet50 | timm | vgg16 | xception*" in lines
    assert "  decoder.channels: 256  # width of the ASPP and of the refinement" in lines
    comments = (config_folder() / "optimizer" / "adamw.yaml").read_text(encoding="utf-8").splitlines()
    assert {f"  optimizer.{comment}" for comment in comments} <= set(lines)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            HydraException("Could not find 'hydra/launcher/joblb'"),
            "hydra/launcher=joblb: there is no such choice. Did you mean joblib? "
            "Expected one of: joblib, submitit_local, submitit_slurm; or your own file with --config-dir.",
        ),
        (
            HydraException("In 'train': Could not find 'decoder/fcn8'"),
            "decoder=fcn8: there is no such choice. Did you mean fcn8s? "
            "Expected one of: deeplabv3plus, fcn8s; or your own file with --config-dir.",
        ),
        (
            HydraException("Could not override 'los'. No match in the defaults list."),
            "los: there is no such group. Did you mean loss? `python -m segtune train --help` lists all.",
        ),
        (
            HydraException("Could not override 'train.clib'.\nKey 'clib' is not in struct"),
            "train.clib: there is no such setting. Did you mean train.clip? "
            "`python -m segtune train --help` lists all.",
        ),
        (HydraException("another\nerror"), "another\nerror"),
        (OmegaConfBaseException("one line\n    full_key: x"), "one line"),
    ],
)
def test_hydras_errors_are_reworded(error: Exception, expected: str) -> None:
    assert readable(error, "train") == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("optimizer.momentum=0.9",),
            "optimizer.momentum: optimizer=adamw has no momentum; optimizer=rmsprop, optimizer=rmsprop_tf and "
            "optimizer=sgd have. What momentum is to SGD, the first of betas is to Adam: optimizer.betas=[0.9,0.999].",
        ),
        (
            ("optimizer=sgd", "optimizer.betas=[0.9,0.9]"),
            "optimizer.betas: optimizer=sgd has no betas; optimizer=adam and optimizer=adamw have. What the first of "
            "betas is to Adam, momentum is to SGD: optimizer.momentum=0.9.",
        ),
        (
            ("decoder=fcn8s", "decoder.atrous_rates=[6,12,18]"),
            "decoder.atrous_rates: decoder=fcn8s has no atrous_rates; decoder=deeplabv3plus has.",
        ),
        (("loss=bce", "loss.smooth=1"), "loss.smooth: loss=bce has no smooth; loss=dice and loss=dice_bce have."),
        (
            ("learning_rate=1",),
            "learning_rate: there is no such setting. Did you mean lr? `python -m segtune train --help` lists all.",
        ),
        (
            ("backbone=hf_hub:timm/convnext_tiny",),
            "backbone=hf_hub:timm/convnext_tiny: there is no such choice. Expected one of: resnet50, timm, vgg16, "
            "xception; or your own file with --config-dir. For any other CNN of timm: backbone=timm "
            "backbone.name=convnext_tiny.",
        ),
    ],
)
def test_settings_of_other_choices_and_of_other_programs(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str
) -> None:
    assert message(capsys, "train", *arguments) == f"segtune train: {expected}"
