"""From settings to objects: the only factory."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from segtune.backbones import BackboneSpec, spec_of
from segtune.config import (
    AugmentSettings,
    BackboneSettings,
    DataSettings,
    DecoderSettings,
    LossSettings,
    OptimizerSettings,
    PhaseSettings,
    RestoreSettings,
    Settings,
    UserError,
    known,
    nearest,
)
from segtune.console import say
from segtune.data.dataset import SegmentationDataset
from segtune.data.images import Foreground
from segtune.data.integrity import check_data, report
from segtune.data.pairs import Pair, Problem, find_pairs, split_pairs
from segtune.data.portraits import make_portraits
from segtune.data.transforms import build_transform
from segtune.decoders.deeplabv3plus import DeepLabV3Plus
from segtune.decoders.fcn8s import FCN8s
from segtune.dilation import set_output_stride
from segtune.freezing import Blocks, block_of, owners, present_blocks, within
from segtune.layers import default_taps
from segtune.losses import bce_loss, dice_bce_loss, dice_loss
from segtune.model import SegmentationModel
from segtune.restore import Restored, restore
from segtune.taps import GradientStop, cut
from segtune.weights import LoadedWeights, load_weights

log = logging.getLogger(__name__)

DECODERS: Mapping[str, Callable[..., nn.Module]] = {"fcn8s": FCN8s, "deeplabv3plus": DeepLabV3Plus}
LOSSES: Mapping[str, Callable[..., Tensor]] = {"dice_bce": dice_bce_loss, "dice": dice_loss, "bce": bce_loss}
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}

Loss = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BuiltModel:
    """A model, the blocks of its backbone (name to module paths), and where its weights come from.

    `new` lists module paths without pretrained weights; `stops` are the places where gradients can be stopped, by the
    name under which a phase's `cut` asks for them.
    """

    model: SegmentationModel
    blocks: Mapping[str, Sequence[str]]
    weights: LoadedWeights
    new: tuple[str, ...]
    stops: Mapping[str, GradientStop]
    restored: Restored | None = None


def build_model(
    backbone: BackboneSettings, taps: Mapping[str, str], decoder: DecoderSettings, cuts: Collection[str] = ()
) -> BuiltModel:
    """Build, load, cut and join.

    Args:
        backbone: Which network, with which weights.
        taps: Role to layer name, or to `auto`: the last layer of the stride that the decoder wants for the role.
        decoder: Which decoder.
        cuts: Layers that gradients must not pass in some phase: of the backbone as in `taps`, or `decoder.…`.

    Raises:
        UserError: The taps do not fit the backbone or the decoder, a layer of `cuts` does not exist, or the weights
            cannot be had.
    """
    spec = spec_of(backbone.name)
    taps = choose_taps(spec, taps, decoder)
    network = spec.build()
    weights = load_weights(spec, network, backbone.weights)
    if backbone.output_stride:
        set_output_stride(network, backbone.output_stride, spec.name)
    stops = {name: GradientStop() for name in cuts}
    inside = {name: stop for name, stop in stops.items() if not _of_decoder(name)}
    trunk, features = cut(network, taps, spec, inside)
    head = DECODERS[decoder.name](
        {role: feature.channels for role, feature in features.items()},
        {role: feature.stride for role, feature in features.items()},
        decoder,
    )
    kept = set(trunk.state_dict())
    lacking = [name for name in weights.missing if name in kept]
    if lacking:
        log.warning("The weights file lacks %s: they start anew and always train.", ", ".join(lacking))
    new = dict.fromkeys("backbone." + name.rpartition(".")[0] for name in lacking)
    model = SegmentationModel(trunk, head, features, spec.mean, spec.std)
    for name in stops.keys() - inside.keys():
        _stop_in_decoder(model, name, stops[name])
    return BuiltModel(model, spec.blocks, weights, (*new, "decoder"), stops)


def choose_taps(spec: BackboneSpec, taps: Mapping[str, str], decoder: DecoderSettings) -> dict[str, str]:
    """Give the taps in the order of the decoder's roles, with a layer in the place of each `auto`.

    Raises:
        UserError: Roles are missing or unknown, or the backbone has no layer of a stride that is wanted.
    """
    decoder_class: Any = DECODERS[decoder.name]
    missing = [role for role in decoder_class.roles if role not in taps]
    if missing or len(taps) > len(decoder_class.roles):
        raise UserError(
            f"The decoder {decoder.name} reads the taps {', '.join(decoder_class.roles)}; "
            f"came {', '.join(taps) or 'none'}. "
            f"Set {' '.join(f'taps.{role}=LAYER' for role in missing) or 'no others'}."
        )
    chosen = default_taps(spec, decoder_class.strides) if "auto" in taps.values() else {}
    return {role: chosen[role] if taps[role] == "auto" else taps[role] for role in decoder_class.roles}


def _of_decoder(cut: str) -> bool:
    return cut in ("decoder", "logits") or cut.startswith("decoder.")


def _stop_in_decoder(model: SegmentationModel, name: str, stop: GradientStop) -> None:
    modules = dict(model.named_modules())
    path = "decoder" if name == "logits" else name
    if path not in modules:
        known = [path for path in modules if path.startswith("decoder.")]
        raise UserError(f"cut={name}: the decoder has no such module.{nearest(name, known)}")
    modules[path].register_forward_hook(partial(_stopped, stop))


def _stopped(stop: GradientStop, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return stop(output)  # type: ignore[no-any-return]


def build_loss(settings: LossSettings) -> Loss:
    """Choose a loss of `(logits, target)` and bind its settings."""
    options: dict[str, Any] = {"per_image": settings.per_image, "empty": settings.empty, "smooth": settings.smooth}
    weights: dict[str, Any] = {"dice_weight": settings.dice_weight, "bce_weight": settings.bce_weight}
    bound: dict[str, Any] = {"dice_bce": options | weights, "dice": options, "bce": {}}[settings.name]
    return partial(LOSSES[settings.name], **bound)


def build_optimizer(
    settings: OptimizerSettings, model: nn.Module, phase: PhaseSettings, blocks: Blocks
) -> torch.optim.Optimizer:
    """Make a fresh optimizer over what trains now.

    Blocks of the backbone have rates of their own (layer-wise decay as in ULMFiT, Howard and Ruder 2018, and BEiT);
    normalisation layers and biases have no weight decay.
    """
    settings = settings.of_phase(phase)
    depth = list(present_blocks(model.get_submodule("backbone"), blocks))
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, decays = block_of(name, blocks), parameter.ndim > 1
        rate = phase.lr
        if part != "decoder":
            above = len(depth) - 1 - depth.index(part) if part in depth else 0
            rate *= phase.backbone_lr_scale * phase.layer_decay**above
        group = {"params": [], "lr": rate, "weight_decay": settings.weight_decay * decays}
        groups.setdefault((rate, decays), group)["params"].append(parameter)
    betas = (settings.betas[0], settings.betas[1])
    return OPTIMIZERS[settings.name](
        list(groups.values()), **({"momentum": settings.momentum} if settings.name == "sgd" else {"betas": betas})
    )


def build_schedule(
    settings: OptimizerSettings, optimizer: torch.optim.Optimizer, phase: PhaseSettings, steps: int
) -> LambdaLR:
    """Warm up linearly over a share of the phase's `steps`, then follow the schedule down to zero."""
    settings = settings.of_phase(phase)
    warm = int(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min(1.0, (step - warm) / max(1, steps - warm))
        match settings.schedule:
            case "cosine":
                return float(0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item()))
            case "poly":
                return float((1 - done) ** settings.power)
            case "constant":
                return 1.0

    return LambdaLR(optimizer, factor)


def find_splits(
    settings: DataSettings, seed: int, progress: Progress | None = None, *, whole: bool = False
) -> tuple[dict[str, list[Pair]], list[Problem]]:
    """Find and split the data, without a look into the files. With `whole` there is one split, `all`.

    Raises:
        UserError: There is no data, or it cannot be split.
    """
    root = Path(settings.root).expanduser()
    if settings.name == "portraits":
        make_portraits(root, progress)
    pairs, problems = find_pairs(root)
    splits = {"all": pairs}
    if not whole:
        shares = known(settings.val_share), known(settings.test_share)
        splits, more = split_pairs(pairs, root, seed=seed, fractions=shares)
        problems += more
    if settings.limit and "train" in splits:
        splits["train"] = splits["train"][: settings.limit]
    return splits, problems


def build_splits(
    settings: DataSettings, seed: int, workers: int, progress: Progress | None = None, *, whole: bool = False
) -> dict[str, list[Pair]]:
    """Find, split and check the data; warnings are shown. With `whole` there is one split, `all`.

    Raises:
        UserError: The data has errors; all are listed.
    """
    splits, problems = find_splits(settings, seed, progress, whole=whole)
    problems += check_data(splits, foreground(settings), workers=max(1, workers), progress=progress)
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        root = Path(settings.root).expanduser()
        raise UserError(f"The data in {root} cannot be used:\n{report(errors)}")
    if problems:
        say(report(problems))
    return splits


def look_for_data(settings: DataSettings, seed: int, workers: int) -> None:
    """Find the data, without a look into the files, for what is wrong there to be said before weights are fetched.

    The files are read only if something is wrong, so that all of it is listed.

    Raises:
        UserError: There is no data, it cannot be split, or it has errors.
    """
    if settings.name == "portraits":  # drawn where it is not there
        return
    if any(problem.level == "error" for problem in find_splits(settings, seed)[1]):
        build_splits(settings, seed, workers)


def foreground(settings: DataSettings) -> Foreground:
    """Say what counts as the object in the masks."""
    rule: Literal["auto", "nonzero"] | int | list[int] = known(settings.foreground)
    return Foreground(tuple(rule) if isinstance(rule, list) else rule, known(settings.invert))


def build_dataset(
    pairs: Sequence[Pair], data: DataSettings, augment: AugmentSettings | None, seed: int = 0
) -> SegmentationDataset:
    """Make a data set for training, or, without augmentation, for evaluation: with masks at their original size too."""
    if augment is None:
        transform = build_transform(data.evaluation_size, None, {})
        return SegmentationDataset(pairs, foreground(data), transform, seed, truth=True)
    transform = build_transform(data.size, augment.crop, augment.transforms)
    return SegmentationDataset(pairs, foreground(data), transform, seed)


def build_start(settings: Settings) -> BuiltModel:
    """Build the model that a run begins with: pretrained, and restored from another file where that is asked for.

    Raises:
        UserError: Taps, cuts, weights or the file to restore cannot be used.
    """
    backbone, restores = settings.backbone, settings.restore
    if restores.checkpoint and restores.scope != "decoder" and backbone.weights == "auto":
        # What the file has needs no other source.
        alone = replace(backbone, weights="none")
        built = _restored(build_model(alone, settings.taps, settings.decoder, _cuts(settings)), restores)
        if built.weights.source:
            return built
    built = build_model(backbone, settings.taps, settings.decoder, _cuts(settings))
    return _restored(built, restores) if restores.checkpoint else built


def _restored(built: BuiltModel, settings: RestoreSettings) -> BuiltModel:
    report = restore(built.model, settings)
    given = set(report.restored)
    names = [name for name in built.model.state_dict() if not name.endswith("num_batches_tracked")]
    lacking = {name.rpartition(".")[0] for name in names if name not in given}
    weights, new = built.weights, built.new
    if weights.source is None and any(name.startswith("backbone.") for name in given):
        weights, new = LoadedWeights(report.source), ("backbone", "decoder")
    left = [path for path in owners(built.model) if path in lacking and within(path, new)]
    return replace(built, weights=weights, new=tuple(left), restored=report)


def rebuild(content: Mapping[str, Any], settings: Settings) -> BuiltModel:
    """Rebuild a model from a loaded checkpoint and its settings; nothing is downloaded."""
    backbone = replace(settings.backbone, weights="none")
    built = build_model(backbone, content["taps"], settings.decoder, _cuts(settings))
    built.model.load_state_dict(content["model"])
    weights = content["weights"]
    return replace(built, weights=LoadedWeights(weights["source"]), new=tuple(weights["new"]))


def _cuts(settings: Settings) -> list[str]:
    return list(dict.fromkeys(phase.cut for phase in settings.freeze.phases.values() if phase.cut))
