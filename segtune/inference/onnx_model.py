"""Load an exported ONNX model and run it with onnxruntime."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segtune.errors import UserError
from segtune.models.finite import check_finite

#: The entries of a file's metadata that `segtune export` writes and inference needs.
KEYS = ("size", "threshold", "settings", "taps")


def need(*packages: str) -> None:
    """Check that packages are installed.

    Raises:
        UserError: Some are missing.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"Not installed: {', '.join(missing)}. Install with: pip install 'segtune[export]'")


def load_onnx(
    path: str | Path, providers: Sequence[str] | None = None
) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """Return the model in a file that `segtune export format=onnx` wrote, and its metadata.

    Args:
        path: The file.
        providers: onnxruntime's execution providers; None: CUDA where onnxruntime has it, else the CPU.

    Returns:
        A function from RGB images, uint8, (N, 3, H, W) with sides of at least 32 pixels, to the probability of
        foreground, float32, (N, 1, H, W), on the CPU; and the training run's `size` ([height, width] of its
        evaluation), `threshold`, `settings` and `taps`.

    Raises:
        UserError: The file is missing, cannot be read, was not written by segtune, or holds weights that are not
            finite; or onnxruntime is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No file {path}. Expected an ONNX file that `segtune export` wrote, such as best.onnx.")
    need("onnxruntime")
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: CUDA leaving some operators to the CPU needs no action
    options.intra_op_num_threads = torch.get_num_threads()  # as PyTorch, so OMP_NUM_THREADS applies here too
    wanted = providers or [
        name
        for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if name in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=list(wanted))
    except Exception as error:  # onnxruntime's errors share no base class
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot read {path}: it is damaged, not an ONNX file, or too new "
            f"({type(error).__name__}). Expected a file that `segtune export` wrote."
        ) from error
    found = session.get_modelmeta().custom_metadata_map
    if missing := [key for key in KEYS if key not in found]:
        raise UserError(
            f"{path} is an ONNX file of another program: it lacks {', '.join(missing)} in its metadata. "
            "Expected a file that `segtune export` wrote."
        )

    _check_weights(path)

    def network(images: Tensor) -> Tensor:
        (probability,) = session.run(["probability"], {"image": images.cpu().contiguous().numpy()})
        return torch.from_numpy(probability)

    return network, {key: json.loads(found[key]) for key in KEYS}


def _check_weights(path: Path) -> None:
    """Check that the weights in an ONNX file are finite, where the package that can tell is installed.

    Constants without dimensions, which may be infinite on purpose, are no weights.

    Raises:
        UserError: Some hold NaN or infinity.
    """
    if importlib.util.find_spec("onnx") is None:
        return  # onnxruntime alone can run the model; what it returns is checked in any case
    import onnx

    tensors = {
        each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).astype("float32"))
        for each in onnx.load(path).graph.initializer
        if each.dims and each.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    }
    check_finite(str(path), tensors)
