"""Files of other programs are known by their first bytes, whatever their names."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from segtune.runtime.file_kinds import foreign_kind


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")  # of a fixed date: the content is part of the test's name
    return content.getvalue()


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("w.pt"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "kind", "advice"),
    [
        (b"", "empty", "Download or copy it again."),
        (bytes(5000), "filled with zeros: a copy or download that failed", "Download or copy it again."),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, as Keras writes", "read them with h5py, transpose"),
        (zipped("metadata.json", "config.json", "model.weights.h5"), "a .keras file", "read them with h5py, transpose"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "a web page, not a file of weights", "/resolve/ in place of /blob/"),
        (b"<html><title>Sign in</title>\xff", "a web page (Sign in), not a file of weights", "Use the direct link"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, not the file itself", "git lfs pull"),
        (b'model_checkpoint_path: "m"', "the list of a TensorFlow checkpoint", "tf.train.load_checkpoint"),
        (bytes(9) + b"x" + bytes.fromhex("57fb808b247547db"), "the index of a TensorFlow checkpoint", "tf.train.load"),
        (zipped("a.txt", "b/c.txt"), "a zip archive of a.txt, b/c.txt", "Unpack it, and name the file inside."),
        (zipped("weight.npy"), "an .npz file of NumPy arrays", "numpy.load"),
        (zipped("m/data.pkl", "m/constants.pkl"), "a TorchScript program", "a program, not tensors by name"),
        (zipped("m/data.pkl")[:-30], "cut off: its end is missing", "Download or copy it again."),
        (tar(), "a tar archive", "Unpack it"),
        (b"\x1f\x8b\x08" + bytes(90), "compressed by gzip", "Unpack it"),
        (b"\x08\x07\x12\x07pytorch", "an ONNX model", "`python -m segtune predict` can use ONNX files"),
        (b"\x93NUMPY\x01\x00", "a NumPy array", "numpy.load"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture", "pictures to predict are named by input="),
        (b"learning_rate: 3\n", "text that begins 'learning_rate: 3'", "Name the file of a model."),
    ],
)
def test_kinds(tmp_path: Path, content: bytes, kind: str, advice: str) -> None:
    (tmp_path / "best.pt").write_bytes(content)
    found = foreign_kind(tmp_path / "best.pt")
    assert found
    assert found.name == kind
    assert advice in found.advice


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.ckpt-9.data-00000-of-00001", "a part of a TensorFlow checkpoint"),
        ("saved_model.pb", "a graph of TensorFlow"),
        ("vgg16.caffemodel", "a Caffe model"),
    ],
)
def test_kinds_by_name_where_bytes_do_not_tell(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\x0a\xff\xfe\xfd" + bytes(60) + b"\x01")
    found = foreign_kind(tmp_path / name)
    assert found
    assert found.name == kind


def test_what_can_be_read_is_not_foreign(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "new.onnx")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pb", _use_new_zipfile_serialization=False)
    (tmp_path / "st").write_bytes(struct.pack("<Q", 2) + b"{}")
    (tmp_path / "unknown.pt").write_bytes(b"\x0a\xff\xfe\xfd" + bytes(60) + b"\x01")
    assert [foreign_kind(path) for path in sorted(tmp_path.iterdir())] == [None] * 4
