"""An ONNX file made by hand: run by `load_onnx`, and refused where segtune did not write it."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from segtune.errors import UserError
from segtune.inference.onnx_model import load_onnx, need

METADATA = {"size": "[64, 96]", "threshold": "0.25", "settings": '{"seed": 7}', "taps": '{"low": "layer1"}'}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model whose probability is the mean of the channels, divided by 255."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 3, "height", "width"])
    result = onnx.helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, ["batch", 1, "height", "width"])
    white = onnx.helper.make_tensor("white", onnx.TensorProto.FLOAT, [], [255.0])
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1], keepdims=1),
        onnx.helper.make_node("Div", ["mean", "white"], ["probability"]),
    ]
    graph = onnx.helper.make_graph(nodes, "mean", [image], [result], initializer=[white])
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[opset])
    onnx.helper.set_model_props(model, METADATA)
    onnx.save(model, tmp_path / "mean.onnx")
    return tmp_path / "mean.onnx"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_weights_that_are_not_finite_are_refused(file: Path, value: float, kind: int) -> None:
    """A scalar may be infinite, as the value that a maximum starts from."""
    model = onnx.load(file)
    model.graph.initializer.append(onnx.helper.make_tensor("least", onnx.TensorProto.FLOAT, [], [-math.inf]))
    onnx.save(model, file)
    load_onnx(file, providers=["CPUExecutionProvider"])
    model.graph.initializer.append(onnx.helper.make_tensor("bias", kind, [2], [0.5, value]))
    onnx.save(model, file)
    with pytest.raises(UserError) as error:
        load_onnx(file)
    assert str(error.value) == (
        f"{file} cannot be used: 1 of its 1 tensors hold NaN or infinity: bias. "
        "The training run diverged, or the file is damaged. Use another checkpoint."
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_run_and_its_metadata_read(file: Path, kind: Callable[[Path], str | Path]) -> None:
    network, facts = load_onnx(kind(file), providers=["CPUExecutionProvider"])
    assert facts == {"size": [64, 96], "threshold": 0.25, "settings": {"seed": 7}, "taps": {"low": "layer1"}}
    images = torch.randint(256, (2, 3, 33, 47), dtype=torch.uint8)
    expected = images.double().mean(1, keepdim=True) / 255
    for given in (images, images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)):  # channels last too
        found = network(given)
        assert (found.dtype, found.shape) == (torch.float32, (2, 1, 33, 47))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_cuda_is_preferred_and_threads_are_pytorchs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, session = [], onnxruntime.InferenceSession

    def record(path: str, options: onnxruntime.SessionOptions, providers: list[str]) -> onnxruntime.InferenceSession:
        made.append((providers, options.intra_op_num_threads))
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    for there in (
        ["CPUExecutionProvider"],
        ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
    ):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda there=there: there)
        load_onnx(file)
    threads = torch.get_num_threads()
    assert made == [(["CPUExecutionProvider"], threads), (["CUDAExecutionProvider", "CPUExecutionProvider"], threads)]


def test_needed_packages_are_named() -> None:
    need("json", "torch")
    with pytest.raises(UserError) as error:
        need("json", "no_such_package", "nor_this_one")
    assert str(error.value) == (
        "Not installed: no_such_package, nor_this_one. Install with: pip install 'segtune[export]'"
    )


def test_what_is_no_export_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^No file .*none\.onnx\. Expected an ONNX file that `segtune export` wrote"):
        load_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"cannot read .*text\.onnx: it is damaged, not an ONNX file, or too new \(Inv"):
        load_onnx(tmp_path / "text.onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "other", [value], [other])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, ir_version=9, opset_imports=[opset]), tmp_path / "other.onnx")
    with pytest.raises(UserError) as error:
        load_onnx(str(tmp_path / "other.onnx"))
    assert str(error.value) == (
        f"{tmp_path / 'other.onnx'} is an ONNX file of another program: it lacks size, threshold, settings, taps "
        "in its metadata. Expected a file that `segtune export` wrote."
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"^Not installed: onnxruntime\. Install with: pip install 'segtune\[export\]'"):
        load_onnx(tmp_path / "other.onnx")
