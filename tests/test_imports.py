"""The direction of imports: `__main__ → cli → commands → engine, build → … → leaves`."""

import ast
from pathlib import Path

import pytest

import segtune

PACKAGE = Path(segtune.__file__).parent

# Rooms from the door to the leaves; a module imports only from later levels, or its own where that is a folder.
LEVELS = [
    {"__main__"},
    {"cli"},
    {"commands", "layer_commands", "check", "predict", "ranking"},
    {"evaluate"},
    {"report"},
    {"assessment"},
    {"engine", "layer_table", "export"},
    {"plan", "recommend", "plots", "charts"},
    {"phases", "evaluation", "records", "probe", "predictor", "inputs", "video"},
    {"build", "onnx_network"},
    {"averaging", "curves", "groups"},
    {"model", "checkpoint", "compute", "data"},
    {"layers", "decoders", "console", "restore"},
    {"taps"},
    {"dilation"},
    {"weights"},
    {
        "backbones",
        "freezing",
        "losses",
        "metrics",
        "pictures",
        "cost",
        "guards",
        "distributed",
        "fields",
        "boundaries",
        "phrases",
        "skin_tone",
        "intervals",
        "tiles",
    },
    {"locate", "wrapping"},
    {"config"},
]
LEAVES = {"config", "losses", "metrics", "decoders", "freezing", "backbones"}
ONLY_IN_CLI = {"hydra", "omegaconf"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """All modules that a file imports, `from segtune import x` counted as segtune.x."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "segtune" else {node.module}
            )
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    if room(path) == "__init__":
        assert imports(path) <= {"segtune.predictor"}  # within a function, for `import segtune` to be quick
        return
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "segtune" or name in ("segtune", "segtune.__version__"):
            continue
        there = parts[1]
        if there == here:
            assert path.parent != PACKAGE, f"{here} imports itself"
            continue
        assert level[here] < level[there], f"{here} imports {there}"
        if here in LEAVES:
            assert there == "config", f"the leaf {here} imports {there}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_cli_knows_hydra(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert room(path) == "cli" or not tops & ONLY_IN_CLI


def test_the_schema_needs_no_torch() -> None:
    assert not {name.split(".")[0] for name in imports(PACKAGE / "config.py")} & {"torch", "numpy", "segtune"}


def test_there_is_no_utils() -> None:
    assert not [path for path in modules() if "util" in path.stem]
