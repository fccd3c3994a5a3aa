"""`train.compile`: PyTorch compiles the network of training steps, and where that fails they go on without."""

import logging
import time
from typing import Any

import torch
from torch import Tensor, nn

from segtune.losses import build_loss
from segtune.models.split import Crossing
from segtune.runtime import distributed
from segtune.runtime.console import say
from segtune.training.freezing import unchanged
from segtune.training.phases import Phase
from segtune.training.state import Run

log = logging.getLogger(__name__)


class CompiledForward:
    """Takes the place of a model's `forward`: compiled for training steps of `images` images, as it was for all else.

    One compiled form for each phase, of fixed sizes: a batch of another size, the last of an epoch, would make PyTorch
    compile a general form, and later batches would take that one; a resumed run would then end with other bits.
    """

    def __init__(self, model: nn.Module, images: int) -> None:
        self.usual, self.images = model.forward, images
        self.compiled = torch.compile(self.usual, dynamic=False)

    def __call__(self, images: Tensor | Crossing) -> Any:
        """Return what the model's `forward` returns."""
        if torch.is_grad_enabled() and len(images) == self.images:
            return self.compiled(_laid_out(images))
        return self.usual(images)


def _laid_out(images: Tensor | Crossing) -> Tensor | Crossing:
    """Return images, or features, in the one layout that they are compiled for."""
    if isinstance(images, Tensor):
        return images.contiguous()
    formats = {4: torch.channels_last}
    return Crossing(
        {
            name: value.contiguous(memory_format=formats.get(value.ndim, torch.contiguous_format))
            for name, value in images.values.items()
        },
        images.size,
    )


def uncompile(model: nn.Module) -> None:
    """Give a model back its own `forward`; one that is not compiled stays as it is."""
    model.__dict__.pop("forward", None)


def compile_network(run: Run, phase: Phase) -> None:
    """Compile the model for the phase that has been entered, if `train.compile` asks for it, and try it once.

    Gradients, buffers and random numbers are as before; names of tensors too, as the model stays the same module. If it
    fails in one process, all go on without, in later phases too.
    """
    model = run.model
    if not run.settings.train.compile or not run.compiles:
        return
    say(f"{phase.name:>10}  compiling the network (train.compile) …")
    began = time.perf_counter()
    torch.compiler.reset()
    images = max(1, run.batches.share_of(0)[0])
    model.forward = CompiledForward(model, images)
    wrong = [each for each in distributed.gather(_wrong_with(run, images)) if each]
    run.state.seconds += time.perf_counter() - began
    if wrong:
        uncompile(model)
        run.compiles = False
        log.warning("Training goes on uncompiled (train.compile): %s", wrong[0])
    else:
        say(f"{phase.name:>10}  compiled in {time.perf_counter() - began:.0f} s")


def _wrong_with(run: Run, images: int) -> str:
    """Return why a forward and backward pass of the compiled model fails; "" if it does not."""
    model, device, size = run.model, run.compute.device, run.settings.data.size
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with unchanged(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
            batch: Any = torch.zeros(images, 3, *size, dtype=torch.uint8)
            if run.features:
                batch = run.features.loader.form.through(run.built.model, batch)
            masks = torch.zeros(images, 1, *size, dtype=torch.uint8, device=device)
            with run.compute.autocast():
                logits = model(batch.to(device))
            build_loss(run.settings.loss)(logits, masks).backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # compilers fail in many ways, and training does not need them
        return _reason(error)
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
    return ""


def _reason(error: BaseException) -> str:
    """Return the first line of an error, or of the one that it hides."""
    inner = getattr(error, "inner_exception", error)
    lines = str(inner).strip().splitlines()
    return f"{type(inner).__name__}: {lines[0]}" if lines else type(inner).__name__
