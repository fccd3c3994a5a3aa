"""The direction of imports: one list of packages, from the command line down, and no cycles."""

import ast
from pathlib import Path

import pytest

import segtune

PACKAGE = Path(segtune.__file__).parent

# From the door to the leaves: a package imports only from lines below its own. `training` computes what `reporting`
# shows, and neither knows the other.
PACKAGES = [
    {"cli"},
    {"commands"},
    {"reporting", "training"},
    {"evaluation"},
    {"inference", "probing", "losses"},
    {"data", "models"},
    {"runtime"},
    {"config"},
    {"metrics", "errors", "version"},
]
LEVEL = {name: level for level, names in enumerate(PACKAGES) for name in names}
ONLY_IN_CLI = {"hydra", "omegaconf"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in modules()}
INNER = [name for name in MODULES if name not in ("segtune", "segtune.__main__")]


def imports(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it; of the package's own the module that holds the name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in inner}
    return found


def package(module: str) -> str:
    return module.split(".")[1]


def inside(path: Path) -> set[str]:
    return {name for name in imports(path) if name.startswith("segtune.")}


def test_every_module_belongs_to_a_package_of_the_list() -> None:
    assert {package(name) for name in INNER} == set(LEVEL)
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "losses.py",
        "version.py",
    }


@pytest.mark.parametrize("module", INNER)
def test_imports_run_one_way(module: str) -> None:
    here = package(module)
    for name in inside(MODULES[module]):
        there = package(name)
        assert there == here or LEVEL[there] > LEVEL[here], f"{module} imports {name}"


def test_the_door_imports_only_the_command_line() -> None:
    assert inside(PACKAGE / "__main__.py") <= {
        "segtune.cli.help",
        "segtune.cli.main",
        "segtune.errors",
        "segtune.version",
    }
    assert inside(PACKAGE / "__init__.py") <= {"segtune.inference.predictor", "segtune.version"}


def test_there_is_no_cycle() -> None:
    graph = {module: inside(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, road: tuple[str, ...]) -> None:
        assert module not in road, " → ".join([*road[road.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*road, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_no_command_imports_a_command() -> None:
    commands = [name for name in INNER if package(name) == "commands"]
    assert not [name for name in commands for other in inside(MODULES[name]) if package(other) == "commands"]


@pytest.mark.parametrize("module", INNER)
def test_only_the_cli_knows_hydra(module: str) -> None:
    tops = {name.split(".")[0] for name in imports(MODULES[module])}
    assert package(module) == "cli" or not tops & ONLY_IN_CLI


@pytest.mark.parametrize("module", [name for name in INNER if package(name) in ("config", "errors", "version")])
def test_settings_need_nothing_heavy(module: str) -> None:
    heavy = {"torch", "numpy", "cv2", "timm", "matplotlib", "scipy"}
    assert not {name.split(".")[0] for name in imports(MODULES[module])} & heavy


def test_there_is_no_utils() -> None:
    assert not [path for path in modules() if "util" in path.stem]


def test_files_and_functions_stay_short() -> None:
    files = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {name: lines for name, lines in files.items() if lines > 330}
    functions = {
        f"{path}:{node.name}": node.end_lineno - node.lineno + 1
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert not {name: lines for name, lines in functions.items() if lines > 60}


def test_every_module_has_its_tests_at_the_mirrored_place() -> None:
    tests = PACKAGE.parent / "tests"
    paths = [path.relative_to(PACKAGE) for path in modules() if path.stem not in ("__init__", "__main__")]
    mirrored = [tests / path.with_name(f"test_{path.name}") for path in paths]
    assert not [str(path.relative_to(tests)) for path in mirrored if not path.is_file()]
