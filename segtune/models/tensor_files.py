"""Read PyTorch and safetensors files without running code in them; what cannot be read is named."""

import io
import pickletools
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segtune.errors import UserError, some
from segtune.runtime.file_kinds import foreign_kind, is_safetensors

#: Modules whose functions act on the machine: no file of weights needs them.
_ACTING = {"builtins", "nt", "os", "posix", "pty", "runpy", "shutil", "socket", "subprocess", "sys", "webbrowser"}


#: What plain pickles of tensors name.
_HARMLESS = re.compile(r"torch\._utils\.|collections\.OrderedDict|torch\.\w+Storage|torch\.storage\.|_codecs\.")


def read_file(path: Path, what: str, expected: str, damage: str) -> Any:
    """Return the content of a PyTorch or safetensors file, its tensors on the CPU. Nothing in it is executed.

    Args:
        path: The file, which exists.
        what: What it should be, such as "checkpoint".
        expected: A sentence on what would be right, the last line of messages.
        damage: What a file may be, beside damaged, that cannot be read for no known reason.

    Raises:
        UserError: It is damaged, of another program, or holds objects of classes.
    """
    begin = f"Cannot read the {what} {path}: it"
    try:
        if kind := foreign_kind(path):
            raise UserError(f"{begin} is {kind.name}. {kind.advice}\n{expected}")
        with path.open("rb") as file, warnings.catch_warnings():
            if is_safetensors(file.read(9)):
                return load_file(path)
            file.seek(0)
            warnings.simplefilter("ignore")  # of the age of the file's format
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead the reader into
        if classes := _classes(path):
            raise UserError(f"{begin} {_of_classes(classes, path)}\n{expected}") from error
        # PyTorch's text advises to run the file's code, so it is not passed on.
        reason = error if isinstance(error, SafetensorError | OSError) else type(error).__name__
        raise UserError(f"{begin} is damaged, or {damage} ({reason}).\n{expected}") from error


def _of_classes(classes: list[str], path: Path) -> str:
    if acting := [name for name in classes if name.partition(".")[0] in _ACTING]:
        return f"would run commands when loaded ({some(acting, 3)}). Nothing was run. Do not load it elsewhere."
    if any(".nn.modules." in name or ".models." in name for name in classes):
        whole, get = "a whole module instead of its tensors, pickled with its classes", "c.state_dict()"
    elif any(name.startswith("numpy.") and name.endswith("_reconstruct") for name in classes):
        whole, get = "NumPy arrays, pickled", "{k: torch.as_tensor(v) for k, v in c['model'].items()}"
    else:
        whole, get = "objects of Python classes beside its tensors", "c['state_dict']"
    load = f"torch.load('{path}', map_location='cpu', weights_only=False)"
    return (
        f"holds {whole} ({some(classes, 3)}); loading these would run code, so segtune does not. If you trust the "
        "file, write its tensors to a new one, where the classes can be imported (with the name of the entry that "
        f"holds them):\n  python -c \"import torch; c = {load}; torch.save({get}, 'new.pt')\""
    )


def _classes(path: Path) -> list[str]:
    """Return the classes and functions that a file names and that are not among those PyTorch allows."""
    with suppress(Exception):  # it is no zip archive, or a damaged one
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    try:
        found = sorted(_named(path.read_bytes()))
    except Exception:  # no pickle either
        return []
    return [name for name in found if not _HARMLESS.match(name)]


def _named(content: bytes) -> set[str]:
    """Return the classes and functions that plain pickles name, one behind the other, as old files of PyTorch are."""
    found, file = set[str](), io.BytesIO(content)
    with suppress(ValueError):  # the end, or what is no pickle
        for _ in range(8):
            found |= _named_by_next(file)
    return found


def _named_by_next(file: BinaryIO) -> set[str]:
    found, texts, memo = set[str](), list[str](), dict[int, str]()
    for code, argument, _ in pickletools.genops(file):
        if code.name == "GLOBAL":
            found.add(str(argument).replace(" ", "."))
        elif code.name == "STACK_GLOBAL" and len(texts) > 1:
            found.add(".".join(texts[-2:]))
        elif "UNICODE" in code.name:
            texts.append(str(argument))
        elif code.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif code.name in ("BINGET", "LONG_BINGET") and argument in memo:
            texts.append(memo[argument])
    return found


def unusable(tensor: Tensor) -> str:
    """Return why a file's tensor cannot be a weight, such as "sparse"; an empty text if it can."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.device.type == "meta":
        return "without values (on the device meta)"
    if tensor.is_quantized:
        return "quantised"
    return f"on the device {tensor.device}" if tensor.device.type != "cpu" else ""
