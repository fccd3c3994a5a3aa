"""Settings in the spelling of other programs: the message has them in segtune's."""

import pytest

from segtune.__main__ import main
from segtune.cli.spelling import check_spelling
from segtune.errors import UserError
from tests.cli.conftest import message


@pytest.mark.parametrize(
    ("typed", "right", "how"),
    [
        ("--data.root X", "data.root=X", "dashes"),
        ("--data.root=X", "data.root=X", "dashes"),
        ("backbone=vgg16 --data.root X --epochs=5", "data.root=X epochs=5", "dashes"),
        ("--batch-size 8 --lr=1e-3", "batch_size=8 lr=1e-3", "dashes"),
        ("--learning-rate 3 --num-workers 2 --device cpu", "lr=3 train.workers=2 train.device=cpu", "dashes"),
        ("-b 8", "batch_size=8", "dashes"),
        ("--epochs", "epochs=VALUE", "dashes"),
        ("--multirun --freeze two_phase", "freeze=two_phase", "dashes"),
        ("data.root X", "data.root=X", "spaces"),
        ("data.root = X", "data.root=X", "spaces"),
        ("data.root= X", "data.root=X", "spaces"),
        ("data.root =X", "data.root=X", "spaces"),
        ("seed 3 lr = 1e-3", "seed=3 lr=1e-3", "spaces"),
    ],
)
def test_settings_as_other_programs_write_them(typed: str, right: str, how: str) -> None:
    wrong = typed.removeprefix("backbone=vgg16 ").removeprefix("--multirun ")
    with pytest.raises(UserError) as error:
        check_spelling(typed.split(), "train")
    assert str(error.value) == f"got {wrong}; settings are written as setting=value, without {how}: {right}"


def test_values_that_the_shell_would_change_are_quoted() -> None:
    with pytest.raises(UserError, match=r": 'data\.root=my photos'$"):
        check_spelling(["--data.root", "my photos"], "train")
    with pytest.raises(UserError) as error:
        check_spelling(["data.root=my", "photos"], "train")
    assert str(error.value) == "got photos after data.root=my; quote a value with spaces: 'data.root=my photos'"


@pytest.mark.parametrize(
    "typed",
    [
        "data.root=X +restore.rename={a:b} ~freeze.phases.head",
        "--config-dir DIR --cfg job --resolve -p freeze",
        "-cd DIR -c job -m lr=1,2",
        "--multi lr=1,2",
        "--hydra-help",
        "data.root=--X",
    ],
)
def test_what_is_right_passes(typed: str) -> None:
    check_spelling(typed.split(), "train")


@pytest.mark.parametrize("typed", ["-h", "--help", "-help", "--h", "-?", "help"])
def test_every_way_to_ask_for_help(capsys: pytest.CaptureFixture[str], typed: str) -> None:
    assert main(["train", typed]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m segtune train ")
    assert "\nShort names: epochs and lr (of every phase), batch_size, image_size, tile, overlap.\n" in out


def test_the_command_line_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, "train", "--data.root", "X") == (
        "segtune train: got --data.root X; settings are written as setting=value, without dashes: data.root=X"
    )
    assert message(capsys, "--data.root", "X", "train") == (
        "segtune: there is no command '--data.root'. The command comes first: python -m segtune train …"
    )
