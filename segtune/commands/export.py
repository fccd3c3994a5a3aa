"""The command `export`: write a checkpoint as ONNX or as a torch.export program, verified against PyTorch."""

from pathlib import Path

from segtune.config.command_settings import ExportSettings
from segtune.errors import UserError
from segtune.inference.export import (
    ENDINGS,
    Deployed,
    compare_outputs,
    describe,
    load_program,
    on_cpu,
    trace,
    write_onnx,
    write_program,
)
from segtune.inference.onnx_model import need
from segtune.models.checkpoint import Checkpoint
from segtune.runtime.console import say, set_up_logging
from segtune.runtime.files import replacing
from segtune.runtime.paths import expanded


def export(settings: ExportSettings) -> Path:
    """Write a checkpoint as ONNX or as a torch.export program, verify it against PyTorch, and return its path.

    Raises:
        UserError: The checkpoint cannot be used, the output exists or cannot be written, or a package is missing.
        FailedError: PyTorch cannot export the model, or the result deviates; no file is written then.
    """
    set_up_logging()
    source = expanded(settings.checkpoint, "checkpoint")
    target = expanded(settings.output, "output") if settings.output else source.with_suffix(ENDINGS[settings.format])
    _check_target(target, source, overwrite=settings.overwrite)
    if settings.format == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    checkpoint = Checkpoint.load(source)
    network, trained = Deployed(checkpoint.rebuild().model), checkpoint.settings
    write, load = {"onnx": (write_onnx, on_cpu), "torch": (write_program, load_program)}[settings.format]
    say(f"exporting {trained.backbone.name} + {trained.decoder.name} …")
    program = trace(network)
    with replacing(target) as temporary:
        write(program, temporary, describe(checkpoint))
        # A tile may be much larger than what training sees, and nothing is learned from that here.
        seen = trained.data.evaluation_size if trained.data.eval_tile is None else trained.data.size
        compare_outputs(network, load(temporary), seen)
        size = temporary.stat().st_size
    say(
        f"Wrote {target} ({size / 1e6:.1f} MB). Input: RGB images, uint8, (N, 3, H, W), sides of at least 32 pixels. "
        "Output: foreground probability, float32, (N, 1, H, W)."
    )
    return target


def _check_target(target: Path, source: Path, *, overwrite: bool) -> None:
    if target.is_dir() or target.resolve() == source.resolve():
        what = "a folder" if target.is_dir() else "the checkpoint itself"
        raise UserError(f"output={target} is {what}; expected the file to write, such as best.onnx.")
    if target.exists() and not overwrite:
        raise UserError(f"{target} already exists. Set another output=… or overwrite=true.")
