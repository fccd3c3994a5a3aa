"""Files written whole or not at all; `test_checkpoint` has a disk that is full."""

import os
from pathlib import Path

from segtune.runtime.files import write_atomically


def test_a_file_keeps_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.json", b"{}")
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
