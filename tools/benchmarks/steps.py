"""Images per second of training steps: plain loops on a batch that lies ready, and `segtune train` from files."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import Figures, Goal, Job, Part

#: The first step of a plain loop chooses kernels, and does not count; nor does it in `images_per_second` of segtune.
_WARM = 1
_KINDS = {"everything": "everything trains", "head": "head only", "features": "head only, on features that lie ready"}
_KINDS |= {"library": f"{_KINDS['features']}, dilated convolutions by PyTorch"}
_RATE = "images_per_second"
CACHED = "segtune train, head_only from the cache"


def part(options: argparse.Namespace) -> Part:
    """Return the plain loops and the runs of `segtune train`, with judges 1 and 2."""
    loops = {kind: bare_job(kind, options) for kind in _KINDS}
    full = Job("segtune train, everything", trained, (options, ("freeze=none", "epochs=1")))
    head = Job("segtune train, head_only without cache", trained, (options, ("freeze=head_only", "epochs=1")))
    cached = cached_job(options)
    everything, features = loops["everything"].name, loops["features"].name
    return Part(  # what is compared stands side by side, so that the machine's moods are shared
        jobs=[loops["everything"], full, loops["features"], cached, head, loops["head"], loops["library"]],
        goals=[
            Goal("full fine-tuning / plain loop", (full.name, _RATE), (everything, _RATE), 0.97, True),
            Goal("head_only, cached / plain loop on features", (cached.name, _RATE), (features, _RATE), 0.95, True),
            Goal("head_only, cached / without cache", (cached.name, _RATE), (head.name, _RATE), 2.8, True),
            Goal("head_only, cached / full fine-tuning", (cached.name, _RATE), (full.name, _RATE), 5.5, True),
        ],
        before=[filling_job(options)],
    )


def cached_job(options: argparse.Namespace) -> Job:
    """Return the job that trains the head on features that `filling_job` has kept."""
    words = ("freeze=head_only", "cache.mode=disk", f"cache.views={options.views}", f"epochs={options.views}")
    return Job(CACHED, trained, (options, words))


def filling_job(options: argparse.Namespace) -> Job:
    """Return the same run, to be made once before."""
    job = cached_job(options)
    return Job("fill the cache of features", job.function, job.arguments)


def sizes(options: argparse.Namespace) -> Part:
    """Return plain loops in several sizes, and in fp32."""
    jobs = []
    for size in options.sizes:
        for kind in ("everything", "head"):
            jobs += [bare_job(kind, options, size=size, precision=precision) for precision in ("auto", "fp32")]
    return Part(jobs)


def bare_job(kind: str, options: argparse.Namespace, **changes: Any) -> Job:
    """Return the job of a plain loop; `changes` are options that differ."""
    chosen = argparse.Namespace(**vars(options) | changes)
    return Job(f"plain loop, {_KINDS[kind]}, {chosen.size} px, {chosen.precision}", bare, (kind, chosen))


def bare(kind: str, options: argparse.Namespace) -> Figures:
    """Return images/s of the steps that a careful user would write, on a batch that lies ready."""
    import torch
    import yaml

    from segtune.cli.help import config_folder
    from segtune.config.loss_settings import DiceBCESettings
    from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings
    from segtune.config.training_settings import OptimizerSettings, PhaseSettings, TrainSettings
    from segtune.losses import build_loss
    from segtune.models.build import build_model
    from segtune.models.decoders.depthwise import DepthwiseConv2d
    from segtune.models.split import split_backbone
    from segtune.runtime.device import resolve_device
    from segtune.training.feature_form import FeatureForm
    from segtune.training.freezing import choose, freeze, train_mode
    from segtune.training.optim import build_optimizer

    compute = resolve_device(TrainSettings(device="cpu", precision=options.precision))
    taps = yaml.safe_load((config_folder() / "taps" / "xception_deeplabv3plus.yaml").read_text("utf-8"))
    built = build_model(BackboneSettings("xception", str(options.weights)), taps, DeepLabV3PlusSettings())
    phase = PhaseSettings(epochs=1, lr=1e-5, backbone="all" if kind == "everything" else 0)
    model = compute.place(built.model)
    scope = choose(model, "measured", phase, built.blocks)
    freeze(model, scope)
    train_mode(model, scope)
    optimizer, loss_fn = (
        build_optimizer(OptimizerSettings("adamw"), model, phase, built.blocks),
        build_loss(DiceBCESettings()),
    )
    given: Any = torch.randint(0, 256, (options.batch, 3, options.size, options.size), dtype=torch.uint8)
    target = (given[:, :1] > 127).to(torch.uint8)
    on_features = kind in ("features", "library")
    for layer in model.modules() if kind == "library" else ():
        if type(layer) is DepthwiseConv2d:
            layer.__class__ = torch.nn.Conv2d  # type: ignore[assignment]
    if on_features:
        model.split = split_backbone(model.backbone)
        given = FeatureForm(compute, compute.dtype, options.batch).through(model, given)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps, began = options.steps * (5 if on_features else 1), 0.0  # these take a fifth of the time
    for number in range(_WARM + steps):
        if number == _WARM:
            began = time.perf_counter()
        with compute.autocast():
            logits = model(given)
        loss_fn(logits, target).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {_RATE: options.batch * steps / (time.perf_counter() - began)}


def common_words(options: argparse.Namespace, *words: str) -> list[str]:
    """Return the words that all runs of `segtune train` here have in common, and `words`, which take precedence."""
    given = {word.partition("=")[0] for word in words}
    common = _common_words(options)
    return [*(word for word in common if word.partition("=")[0] not in given), *words]


def _common_words(options: argparse.Namespace) -> list[str]:
    return [
        *("backbone=xception", "decoder=deeplabv3plus", f"backbone.weights={options.weights}", "augment=light"),
        *("data=folder", f"data.root={options.folder / 'train'}", f"data.image_size={options.size}"),
        *(f"train.batch_size={options.batch}", f"train.precision={options.precision}", "train.device=cpu"),
        *("train.samples=1", f"cache.folder={options.folder / 'features'}", "cache.mode=off"),
    ]


def run_segtune(words: list[str]) -> None:
    """Run a command of segtune here.

    Raises:
        RuntimeError: It failed.
    """
    from segtune.__main__ import main as segtune

    if code := segtune(words):
        raise RuntimeError(f"segtune {' '.join(words)} ended with exit code {code}")


def trained(options: argparse.Namespace, words: tuple[str, ...]) -> Figures:
    """Return what the summary of a run of `segtune train` says, from files to the end of its epochs."""
    runs = Path(tempfile.mkdtemp(dir=options.folder))
    run_segtune(["train", *common_words(options, *words, f"run_dir={runs / 'run'}")])
    summary = json.loads((runs / "run" / "summary.json").read_text("utf-8"))
    shutil.rmtree(runs)
    names = {_RATE: _RATE, f"{_RATE}_with_start": "with_start", "seconds": "seconds"}
    names |= {"cache_seconds": "cache_seconds", "wait_seconds": "wait_seconds"}
    return {short: summary[name] for name, short in names.items()}


def weights_file(options: argparse.Namespace) -> Figures:
    """Write a file of random weights, for what is frozen must be pretrained; their values do not matter for speed."""
    from safetensors.torch import save_file

    from segtune.models.backbones.registry import BACKBONES

    save_file(BACKBONES["xception"].build().state_dict(), options.weights)
    return {}
