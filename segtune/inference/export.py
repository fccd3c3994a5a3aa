"""Export: a checkpoint as one file that runs without segtune, proven to give what PyTorch gives."""

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

#: How far a probability of the exported program may be from PyTorch's, both in float32 on the CPU.
TOLERANCE = 1e-4

#: What a single ONNX file can hold, in bytes: the limit of its format.
LARGEST = 2**31

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}

Network = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """A model as others use it: from pictures to the probability of object.

    Contract: RGB, uint8, (N, 3, H, W) of any H and W from 32 up, to float32 (N, 1, H, W), 0 to 1. Pictures are uint8
    wherever they come from, so that is the type: no range to guess, and a quarter of what floats would take.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Predict; see the class."""
        return torch.sigmoid(self.model(image))


def describe(checkpoint: Checkpoint) -> dict[str, str]:
    """Return, in strings that go into the file, what the network is and how it was trained."""
    trained, state = checkpoint.settings, checkpoint.state or {}
    found = {
        "segtune": __version__,
        "size": json.dumps(trained.data.evaluation_size),
        "threshold": str(trained.train.threshold),
        "taps": json.dumps(dict(checkpoint.taps)),
        "settings": json.dumps(asdict(trained)),
    }
    if state.get("rows") and not state["step"]:  # in the middle of an epoch the weights have moved on
        found["val_dice"] = str(state["rows"][-1]["val_dice"])
    return found


def trace(network: Deployed) -> ExportedProgram:
    """Trace a network for any number of pictures of any size from 32 pixels up.

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
    """Let sizes have no value while PyTorch traces, so that nothing binds the program to some of them."""
    from torch.fx.experimental.dynamic_spec import ParamsSpec, ShapesSpec, ShapeVar, TensorSpec  # from PyTorch 2.14 on

    shape: list[Any] = [ShapeVar("batch", min=1), 3, ShapeVar("height", min=32), ShapeVar("width", min=32)]
    return ShapesSpec(params=ParamsSpec({"image": TensorSpec(shape)}))


def _example_sizes() -> Any:
    """Let sizes have the example's values where a network asks for them, such as in a pooling that rounds up.

    The answers become checks of the program. They can bind it to larger sizes: a map of one pixel has another layout.
    """
    side = Dim.DYNAMIC(min=32)  # type: ignore[operator, unused-ignore]
    return ({0: Dim.DYNAMIC, 2: side, 3: side},)


def write_onnx(program: ExportedProgram, path: Path, description: Mapping[str, str]) -> None:
    """Write a traced network and its description as a single ONNX file.

    Raises:
        UserError: It is too large for one file.
        FailedError: PyTorch cannot translate it.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size >= LARGEST:
        raise UserError(
            f"The model has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB. "
            "format=torch has no such limit."
        )
    with _exporting():
        found = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["image"], output_names=["probability"]
        )
        assert found is not None  # it is when the older exporter writes a file by itself
        _tidy(found.model)
        found.model.metadata_props.update(description)
        content = found.model_proto.SerializeToString()
    path.write_bytes(content)


def _tidy(model: Any) -> None:
    """Return the sizes their names, and take out the notes PyTorch makes at nodes, with lines of source code."""
    from onnxscript import ir

    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.shape = None  # under names of PyTorch's own; runtimes find them out by themselves
    for value, channels in ((model.graph.inputs[0], 3), (model.graph.outputs[0], 1)):
        value.shape = ir.Shape(["batch", channels, "height", "width"])


def write_program(program: ExportedProgram, path: Path, description: Mapping[str, str]) -> None:
    """Write a traced network and its description as a torch.export program."""
    content = io.BytesIO()
    with _exporting():
        torch.export.save(program, content, extra_files=dict(description))
    path.write_bytes(content.getbuffer())


def load_program(path: Path) -> Network:
    """Load what `write_program` wrote."""
    with path.open("rb") as file, _exporting():
        return torch.export.load(file).module()


def on_cpu(path: Path) -> Network:
    """Return an exported ONNX file as a network on the CPU.

    Raises:
        FailedError: It cannot be used.
    """
    try:
        return load_onnx(path, providers=["CPUExecutionProvider"])[0]
    except UserError as error:
        raise FailedError(f"The exported file cannot be used, and was removed: {error.__cause__ or error}") from error


def compare_outputs(network: Deployed, exported: Network, size: tuple[int, int]) -> None:
    """Compare an exported program with PyTorch: at the evaluation's size, an odd one, and in a batch.

    Raises:
        FailedError: A probability deviates by more than the tolerance, or the program does not run.
    """
    for shape in ((1, *size), (1, 97, 131), (2, 64, 160)):
        images = _pictures(*shape)
        with torch.inference_mode(), _exporting():
            expected = network(images)
            deviation = (exported(images) - expected).abs().max().item()
        named = f"{shape[0]} x 3 x {shape[1]} x {shape[2]}"
        if not deviation <= TOLERANCE:  # so put, NaN is refused too
            raise FailedError(
                f"On {named} the exported program deviates from PyTorch by up to {deviation:.1e} in the probability, "
                f"more than {TOLERANCE:g}. The file was removed. The other format may do: format=onnx or format=torch."
            )
        low, high = (value.item() for value in expected.aminmax())
        say(f"  {named}: largest deviation from PyTorch {deviation:.1e}, on probabilities {low:.3f} to {high:.3f}")


def _pictures(count: int, height: int, width: int) -> Tensor:
    """Draw pictures (N, 3, H, W): scenes, since in noise a network finds nothing, and then little can deviate."""
    scenes = [cv2.resize(draw_scene(seed)[0], (width, height), interpolation=cv2.INTER_AREA) for seed in range(count)]
    return torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).contiguous()


@contextmanager
def _exporting() -> Iterator[None]:
    """Keep the exporters' talk from the terminal, and turn what they raise into one error.

    Raises:
        FailedError: Something was raised that is not the user's to put right.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # their errors are raised as well
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (OSError, UserError):
        raise
    except Exception as error:  # exporters raise whatever they stumble over
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise FailedError(
            f"PyTorch {torch.__version__} cannot export this model: {type(error).__name__}: {lines[0]}\n"
            "Another version of PyTorch, or the other format (format=onnx, format=torch), may do."
        ) from error
    finally:
        logging.disable(before)
