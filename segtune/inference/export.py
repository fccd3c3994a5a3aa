"""Export a checkpoint as one file that runs without segtune, and compare its output with PyTorch's."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segtune.data.sources.portraits import draw_scene
from segtune.errors import FailedError, UserError
from segtune.inference.onnx_model import load_onnx
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.console import say
from segtune.version import __version__

#: The largest allowed deviation of an exported model's probability from PyTorch's, both in float32 on the CPU.
TOLERANCE = 1e-4

#: The limit of a single ONNX file, in bytes.
LARGEST = 2**31

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}

Network = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """The deployed form of a model: maps images to the probability of foreground.

    Contract: RGB, uint8, (N, 3, H, W) with any H and W from 32 up, to float32 (N, 1, H, W), 0 to 1. The input is uint8,
    the type of decoded images: its range is unambiguous, and it takes a quarter of the memory of float32.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the probability; see the class."""
        return torch.sigmoid(self.model(image))


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata of an exported file: the network, its settings and its validation Dice, as strings."""
    trained, state = checkpoint.settings, checkpoint.state
    found = {
        "segtune": __version__,
        "size": json.dumps(trained.data.evaluation_size),
        "threshold": str(trained.train.threshold),
        "taps": json.dumps(dict(checkpoint.taps)),
        "settings": json.dumps(asdict(trained)),
    }
    if state and state.rows and not state.step:  # within an epoch the weights are newer than the score
        found["val_dice"] = str(state.rows[-1]["val_dice"])
    return found


def trace(network: Deployed) -> ExportedProgram:
    """Return a network traced for any batch size and any image size from 32 pixels up.

    Raises:
        FailedError: PyTorch cannot trace it.
    """
    failed = None
    for sizes in (_unknown_sizes, _example_sizes):
        try:
            with _exporting():
                images = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)
                return torch.export.export(network, (images,), dynamic_shapes=sizes(), strict=False)
        except FailedError as error:
            failed = failed or error
    assert failed
    raise failed


def _unknown_sizes() -> Any:
    """Return sizes that have no value while PyTorch traces, so the program is bound to none."""
    from torch.fx.experimental.dynamic_spec import ParamsSpec, ShapesSpec, ShapeVar, TensorSpec  # from PyTorch 2.14 on

    shape: list[Any] = [ShapeVar("batch", min=1), 3, ShapeVar("height", min=32), ShapeVar("width", min=32)]
    return ShapesSpec(params=ParamsSpec({"image": TensorSpec(shape)}))


def _example_sizes() -> Any:
    """Return sizes that take the example's values where a network branches on them, as a pooling that rounds up does.

    The branches taken become checks in the program, which can exclude small sizes, such as feature maps of one pixel.
    """
    side = Dim.DYNAMIC(min=32)  # type: ignore[operator, unused-ignore]
    return ({0: Dim.DYNAMIC, 2: side, 3: side},)


def write_onnx(program: ExportedProgram, path: Path, description: Mapping[str, str]) -> None:
    """Write a traced network and its description as a single ONNX file.

    Raises:
        UserError: The model is too large for one file.
        FailedError: PyTorch cannot convert it.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size >= LARGEST:
        raise UserError(
            f"The model has {size / 1e9:.1f} GB of weights, but an ONNX file holds at most 2 GB. "
            "Set format=torch, which has no such limit."
        )
    with _exporting():
        found = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["image"], output_names=["probability"]
        )
        assert found is not None  # only the older exporter, which writes the file itself, returns None
        _tidy(found.model)
        found.model.metadata_props.update(description)
        content = found.model_proto.SerializeToString()
    path.write_bytes(content)


def _tidy(model: Any) -> None:
    """Name the dynamic sizes, and remove the metadata that PyTorch adds to nodes, such as lines of source code."""
    from onnxscript import ir

    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.shape = None  # named by PyTorch; runtimes infer the shapes
    for value, channels in ((model.graph.inputs[0], 3), (model.graph.outputs[0], 1)):
        value.shape = ir.Shape(["batch", channels, "height", "width"])


def write_program(program: ExportedProgram, path: Path, description: Mapping[str, str]) -> None:
    """Write a traced network and its description as a torch.export program."""
    content = io.BytesIO()
    with _exporting():
        torch.export.save(program, content, extra_files=dict(description))
    path.write_bytes(content.getbuffer())


def load_program(path: Path) -> Network:
    """Return the network in a file that `write_program` wrote."""
    with path.open("rb") as file, _exporting():
        return torch.export.load(file).module()


def on_cpu(path: Path) -> Network:
    """Return the network in an exported ONNX file, on the CPU.

    Raises:
        FailedError: The file cannot be used.
    """
    try:
        return load_onnx(path, providers=["CPUExecutionProvider"])[0]
    except UserError as error:
        raise FailedError(f"The exported file cannot be used and was removed: {error.__cause__ or error}") from error


def compare_outputs(network: Deployed, exported: Network, size: tuple[int, int]) -> None:
    """Compare an exported program with PyTorch at the evaluation size, at an odd size, and in a batch.

    Raises:
        FailedError: A probability deviates by more than the tolerance or is not finite, or the program does not run.
    """
    for shape in ((1, *size), (1, 97, 131), (2, 64, 160)):
        images = _scenes(*shape)
        with torch.inference_mode(), _exporting():
            expected = network(images)
            deviation = (exported(images) - expected).abs().max().item()
        if not expected.isfinite().all():
            raise FailedError(
                "The model returns NaN or infinity in float32 on the CPU: its weights are broken. It is not exported."
            )
        dimensions = f"{shape[0]} x 3 x {shape[1]} x {shape[2]}"
        if not deviation <= TOLERANCE:  # true of NaN too
            raise FailedError(
                f"On {dimensions} the exported program deviates from PyTorch by up to {deviation:.1e} in the "
                f"probability, more than {TOLERANCE:g}. The file was removed. Try the other format: format=onnx or "
                "format=torch."
            )
        low, high = (value.item() for value in expected.aminmax())
        say(f"  {dimensions}: largest deviation from PyTorch {deviation:.1e}, probabilities {low:.3f} to {high:.3f}")


def _scenes(count: int, height: int, width: int) -> Tensor:
    """Return drawn scenes (N, 3, H, W): in noise a network finds no foreground, and little could deviate."""
    scenes = [cv2.resize(draw_scene(seed)[0], (width, height), interpolation=cv2.INTER_AREA) for seed in range(count)]
    return torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).contiguous()


@contextmanager
def _exporting() -> Iterator[None]:
    """Silence the exporters, and turn their exceptions into one error.

    Raises:
        FailedError: An exporter failed, other than by a file that cannot be written.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # what matters is raised as well
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (OSError, UserError):
        raise
    except Exception as error:  # exporters raise any kind
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise FailedError(
            f"PyTorch {torch.__version__} cannot export this model: {type(error).__name__}: {lines[0]}\n"
            "Try another version of PyTorch, or the other format (format=onnx, format=torch)."
        ) from error
    finally:
        logging.disable(before)
