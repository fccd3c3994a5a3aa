"""What a file is by its first bytes, for messages about files that are not what was expected; imports nothing heavy."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class FileKind(NamedTuple):
    """A kind of file: what it is, with its article, and what to do with it, in whole sentences."""

    name: str
    advice: str


_CONVERT = (
    "segtune reads PyTorch's tensors. For the ImageNet weights of the same network use backbone.weights=auto. To "
    "convert weights of your own: read them with {reader}, transpose the kernels of convolutions from (H, W, in, out) "
    "to (out, in, H, W), of depthwise ones from (H, W, in, 1) to (in, 1, H, W), give them PyTorch's names, and write "
    "them with safetensors.torch.save_file. `python -m segtune taps details=true` lists Keras's names beside PyTorch's."
)
_KERAS = _CONVERT.format(reader="h5py")
_TENSORFLOW = _CONVERT.format(reader="tf.train.load_checkpoint")
_UNPACK = "Unpack it, and name the file inside."
_AGAIN = "Download or copy it again."
_EXPORTED = (
    "`python -m segtune predict` can use ONNX files that `export` wrote; everything else needs the checkpoint that it "
    "was made from, such as RUN/checkpoints/best.pt."
)
_PICTURE = "Name the file of a model; pictures to predict are named by input=."
_TRACED = "It holds a program, not tensors by name. Use the checkpoint or the state_dict that it was made from."

#: The first bytes of files, at an offset.
_MAGIC: Sequence[tuple[int, bytes, FileKind]] = (
    (0, b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file, as Keras writes", _KERAS)),
    (0, b"version https://git-lfs", FileKind("a pointer of Git LFS, not the file itself", "Run `git lfs pull` there.")),
    (0, b"\x93NUMPY", FileKind("a NumPy array", _CONVERT.format(reader="numpy.load"))),
    (0, b"MATLAB", FileKind("a MATLAB file", _CONVERT.format(reader="scipy.io.loadmat"))),
    (0, b"GGUF", FileKind("a GGUF file of a language model", _TRACED)),
    (4, b"TFL3", FileKind("a TensorFlow Lite model", _TRACED)),
    (0, b"\x1f\x8b", FileKind("compressed by gzip", _UNPACK)),
    (0, b"BZh", FileKind("compressed by bzip2", _UNPACK)),
    (0, b"\xfd7zXZ\0", FileKind("compressed by xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", FileKind("compressed by zstd", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", _UNPACK)),
    (0, b"Rar!", FileKind("a RAR archive", _UNPACK)),
    (257, b"ustar", FileKind("a tar archive", _UNPACK)),
    (0, b"\x89PNG", FileKind("a PNG picture", _PICTURE)),
    (0, b"\xff\xd8\xff", FileKind("a JPEG picture", _PICTURE)),
    (0, b"%PDF", FileKind("a PDF document", _AGAIN)),
)

#: Files without first bytes of their own, by their names.
_NAMES: Sequence[tuple[str, FileKind]] = (
    (r"\.data-\d{5}-of-\d{5}$", FileKind("a part of a TensorFlow checkpoint", _TENSORFLOW)),
    (r"\.meta$|^saved_model\.pb$|\.pb$", FileKind("a graph of TensorFlow", _TENSORFLOW)),
    (r"\.caffemodel$|\.prototxt$", FileKind("a Caffe model", _CONVERT.format(reader="OpenCV's dnn module"))),
    (r"\.msgpack$", FileKind("a file of Flax", _CONVERT.format(reader="flax.serialization"))),
    (r"\.onnx$", FileKind("an ONNX model", _EXPORTED)),
)

#: Names of members by which a zip archive is told.
_ZIPPED: Sequence[tuple[str, FileKind]] = (
    (r"(^|/)constants\.pkl$", FileKind("a TorchScript program", _TRACED)),
    (
        r"(^|/)(archive_format|serialized_exported_program\.json|models/model\.json)$",
        FileKind("a torch.export program", _TRACED),
    ),
    (r"^model\.weights\.h5$", FileKind("a .keras file", _KERAS)),
    (r"\.npy$", FileKind("an .npz file of NumPy arrays", _CONVERT.format(reader="numpy.load"))),
)

_HEAD, _TABLE = 4096, b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"


def foreign_kind(path: Path) -> FileKind | None:
    """Return the kind of a file that is neither PyTorch's nor safetensors; None for these and for unknown ones.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - len(_TABLE)))
        tail = file.read()
    if not head:
        return FileKind("empty", _AGAIN)
    if not head.strip(b"\0"):
        return FileKind("filled with zeros: a copy or download that failed", _AGAIN)
    for check in (_by_magic, _by_text):
        if kind := check(head):
            return kind
    if tail == _TABLE:
        return FileKind("the index of a TensorFlow checkpoint", _TENSORFLOW)
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if head[:1] == b"\x08" and head[1] < 32 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42"):
        return FileKind("an ONNX model", _EXPORTED)
    if is_safetensors(head) or head[0] == 0x80:  # a pickle
        return None
    return next((kind for pattern, kind in _NAMES if re.search(pattern, path.name)), None)


def is_safetensors(head: bytes) -> bool:
    """Return whether a file that begins with these bytes, nine or more, is a safetensors file."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _by_magic(head: bytes) -> FileKind | None:
    return next((kind for at, magic, kind in _MAGIC if head[at : at + len(magic)] == magic), None)


def _by_text(head: bytes) -> FileKind | None:
    """Return the kind of a file of text."""
    page = head.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip()
    if re.match(r"<(!doctype|html|head|\?xml)", page, re.IGNORECASE):
        title = re.search(r"<title[^>]*>\s*([^<]{1,60})", page, re.IGNORECASE)
        return FileKind(
            f"a web page{f' ({title[1].strip()})' if title else ''}, not a file of weights",
            "The download gave a page, such as a login or a warning. Use the direct link (on the Hugging Face Hub "
            "/resolve/ in place of /blob/, on GitHub raw), or a browser.",
        )
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < _HEAD - 3:  # else only a character was cut
            return None
        text = head[: error.start].decode()
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        return None
    text = text.lstrip("\ufeff").lstrip()
    if text.startswith("model_checkpoint_path"):
        return FileKind("the list of a TensorFlow checkpoint", _TENSORFLOW)
    first = text.splitlines()[0][:40] if text else ""
    return FileKind(f"text that begins '{first}'", "Name the file of a model.")


def _zip_kind(path: Path) -> FileKind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return FileKind("cut off: its end is missing", _AGAIN)
    for pattern, kind in _ZIPPED:
        if any(re.search(pattern, name) for name in names):
            return kind
    if any(re.search(r"(^|/)data\.pkl$", name) for name in names):
        return None
    inside = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return FileKind(f"a zip archive of {inside or 'nothing'}", _UNPACK)
