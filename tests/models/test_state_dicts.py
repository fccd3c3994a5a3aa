"""State dicts of other programs: nested ones are opened where one is meant, prefixes are found."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segtune.errors import UserError
from segtune.models.state_dicts import best_prefixes, check_types, read_state_dict

W = {"conv.weight": torch.ones(2)}
ADAM = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0]}]}


def names(content: Any, path: Path) -> list[str]:
    torch.save(content, path)
    return list(read_state_dict(path))


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ({"state_dict": W, "epoch": 3}, "state_dict"),
        ({"model_state_dict": W, "optimizer_state_dict": ADAM}, "model_state_dict"),
        ({"net": W, "optimizer": ADAM, "acc": 0.9}, "net"),
        ({"epoch": 1, "ema": {"module": W}}, "ema.module"),
        ({"model": {"model": {"state_dict": W}}}, "model.model.state_dict"),
    ],
)
def test_the_only_dictionary_of_tensors_is_opened_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any, entry: str
) -> None:
    path = tmp_path / "w.pt"
    logging.getLogger("segtune").propagate = True
    with caplog.at_level(logging.INFO, "segtune"):
        assert names(content, path) == ["conv.weight"]
    # Twice where pytest captures loggers that do not propagate, as after `set_up_logging` in another test.
    assert set(caplog.messages) == {f"{path}: took the tensors of its entry {entry}."}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": W, "state_dict_ema": W | {"b": torch.ones(1)}},
        {"teacher": {"net": W}, "student": {"net": W}},
        {"generator": W, "discriminator": W},
    ],
)
def test_several_are_listed_with_the_command_that_takes_one(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(UserError) as error:
        names(content, path)
    first, second = (f"{key}.net" if "net" in value else key for key, value in content.items())
    keys = "".join(f"['{key}']" for key in first.split("."))
    assert str(error.value) == (
        f"{path} holds several dictionaries of tensors (their numbers): {first} (1), {second} "
        f"({len(list(content.values())[1])}). Write the one that you mean to a file of its own, such as {first}:\n"
        f"  python -c \"import torch; torch.save(torch.load('{path}', weights_only=True){keys}, 'new.pt')\""
    )
    torch.save(torch.load(path, weights_only=True)[first.split(".")[0]], path)  # what the command does
    assert list(read_state_dict(path)) == ["conv.weight"]


def test_parts_in_entries_of_their_own_are_joined(tmp_path: Path) -> None:
    assert names({"encoder": W, "decoder": {"b": torch.ones(1)}}, tmp_path / "w.pt") == [
        "encoder.conv.weight",
        "decoder.b",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module.conv.weight", "conv.weight"),
        ("_orig_mod.module.conv.weight", "conv.weight"),
        ("module._orig_mod.conv.weight", "conv.weight"),
        ("backbone._orig_mod.conv.weight", "backbone.conv.weight"),
        ("_fsdp_wrapped_module.conv._checkpoint_wrapped_module.weight", "conv.weight"),
    ],
)
def test_names_of_wrappers_are_left_out(tmp_path: Path, name: str, expected: str) -> None:
    assert names({name: torch.ones(1)}, tmp_path / "w.pt") == [expected]


OWN = {"conv.weight": torch.ones(2, 3), "bn.weight": torch.ones(2), "bn.num_batches_tracked": torch.ones(())}


def prefixed(*prefixes: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for prefix in prefixes for name, tensor in OWN.items()}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (prefixed(""), ([""], 2)),
        (prefixed("encoder."), (["encoder."], 2)),
        (prefixed("model.net.backbone.") | {"head.weight": torch.ones(2)}, (["model.net.backbone."], 2)),
        (prefixed("q.", "k."), (["q.", "k."], 2)),
        ({"a.bn.num_batches_tracked": torch.ones(())}, ([], 0)),  # counters tell nothing
        ({"a.bn.weight": torch.ones(3)}, ([], 0)),  # nor do names with other shapes
        ({}, ([], 0)),
    ],
)
def test_prefixes(found: dict[str, Tensor], expected: tuple[list[str], int]) -> None:
    assert best_prefixes(found, OWN) == expected


def test_prefixes_before_names_that_are_renamed() -> None:
    assert best_prefixes({"net.old.weight": torch.ones(2, 3)}, OWN, lambda name: name.replace("old", "conv")) == (
        ["net."],
        1,
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_quantised_weights_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    check_types({"a": torch.ones(1, dtype=torch.float64), "b": torch.ones(1, dtype=dtype)}, ["a"], tmp_path)
    with pytest.raises(UserError, match=f"its tensor b holds {str(dtype)[6:]}; expected floating-point numbers"):
        check_types({"b": torch.ones(1, dtype=dtype)}, ["b"], tmp_path)
