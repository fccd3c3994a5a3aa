"""What the tests of `taps` and `probe` share."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import segtune.models.layer_info as layers_module
import segtune.models.taps as taps_module
from segtune.__main__ import main
from segtune.models.backbones.registry import BACKBONES, spec_of
from segtune.models.backbones.spec import BackboneSpec
from segtune.runtime import console

SMALL = "mobilenetv3_small_050"
TIMM = ("backbone=timm", f"backbone.name={SMALL}", "data.image_size=64", "train.device=cpu")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return err.strip()


@pytest.fixture
def at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "color_system": None}
    monkeypatch.setattr(console, "console", Console(width=80, force_terminal=True, **options))


def words(out: str) -> set[str]:
    """Return the words of a screen of 80 columns, after checking that nothing is wider, or cut."""
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "…" not in out
    return set(out.replace("│", " ").split())


Counted = tuple[list[str], list[str]]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Counted]:
    """Return a function that notes, from then on, each build of a backbone and each tap name that is resolved."""

    def begin(name: str) -> Counted:
        built: list[str] = []
        resolved: list[str] = []
        spec, original = spec_of(name), taps_module.resolve

        def build() -> torch.nn.Module:
            built.append(name)
            return spec.build()

        def resolve(tap: str, nodes: list[str], spec: BackboneSpec) -> str:
            resolved.append(tap)
            return original(tap, nodes, spec)

        monkeypatch.setitem(BACKBONES, name, replace(spec, build=build))  # type: ignore[arg-type]
        for module in (taps_module, layers_module):
            monkeypatch.setattr(module, "resolve", resolve)
        return built, resolved

    return begin
