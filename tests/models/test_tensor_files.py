"""Files with tensors: what can be read, and what is said of files that would run code or cannot be weights."""

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segtune.errors import UserError
from segtune.models.tensor_files import read_file, unusable


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_file(path, "weights file", "Expected tensors.", "something else")
    return str(error.value).replace(str(path), "FILE")


def old_format(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plainly(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
@pytest.mark.parametrize("writer", [torch.save, old_format, save_file])
def test_the_content_decides_not_the_ending(tmp_path: Path, name: str, writer: Callable[[Any, Path], None]) -> None:
    writer({"a": torch.arange(3.0)}, tmp_path / name)
    assert torch.equal(read_file(tmp_path / name, "file", "", "")["a"], torch.arange(3.0))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


HOW = (
    "loading these would run code, so segtune does not. If you trust the file, write its tensors to a new one, where "
    "the classes can be imported (with the name of the entry that holds them):\n"
    "  python -c \"import torch; c = torch.load('FILE', map_location='cpu', weights_only=False); "
)


@pytest.mark.parametrize("writer", [torch.save, old_format])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            nn.Linear(2, 3),
            ["a whole module instead of its tensors, pickled with its classes", "torch.save(c.state_dict(), 'new.pt')"],
        ),
        (
            {"state_dict": {}, "args": argparse.Namespace(lr=1)},
            ["objects of Python classes beside its tensors (argparse.Namespace)", "torch.save(c['state_dict'], 'new"],
        ),
        (
            {"model": {"w": np.ones(3)}},
            ["NumPy arrays, pickled", "torch.save({k: torch.as_tensor(v) for k, v in c['model'].items()}, 'new.pt')"],
        ),
    ],
    ids=["module", "arguments", "arrays"],
)
def test_pickled_classes_are_named_with_the_way_to_convert(
    tmp_path: Path, content: Any, expected: list[str], writer: Callable[[Any, Path], None]
) -> None:
    writer(content, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert message.startswith(f"Cannot read the weights file FILE: it holds {expected[0]}")
    assert HOW + expected[1] in message


@pytest.mark.parametrize("writer", [torch.save, old_format, plainly])
def test_a_file_with_commands_is_refused_without_advice_to_load_it(
    tmp_path: Path, writer: Callable[[Any, Path], None]
) -> None:
    writer({"a": Payload(), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt") == (
        "Cannot read the weights file FILE: it would run commands when loaded (posix.system). Nothing was run. "
        "Do not load it elsewhere.\nExpected tensors."
    )


def test_a_file_of_another_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert refusal(tmp_path / "w.h5") == (
        "Cannot read the weights file FILE: it is a pointer of Git LFS, not the file itself. "
        "Run `git lfs pull` there.\nExpected tensors."
    )
    (tmp_path / "w.pt").write_bytes(b"\x80\x02G\xff\xfe")
    assert refusal(tmp_path / "w.pt").startswith(
        "Cannot read the weights file FILE: it is damaged, or something else ("
    )


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.ones(2), ""),
        (nn.Parameter(torch.ones(2)), ""),
        (torch.ones(2).to_sparse(), "sparse"),
        (torch.ones(2, 2).to_sparse_csr(), "sparse"),
        (torch.empty(2, device="meta"), "without values (on the device meta)"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "nested"),
    ],
)
def test_tensors_that_cannot_be_weights(tensor: Tensor, why: str) -> None:
    assert unusable(tensor) == why
