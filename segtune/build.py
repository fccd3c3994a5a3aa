"""From settings to objects: the only factory."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from segtune.backbones import BACKBONES, LoadedWeights, load_weights
from segtune.config import (
    AugmentSettings,
    BackboneSettings,
    DataSettings,
    DecoderSettings,
    LossSettings,
    OptimizerSettings,
    PhaseSettings,
    Settings,
    UserError,
    known,
)
from segtune.data.dataset import SegmentationDataset
from segtune.data.images import Foreground
from segtune.data.integrity import check_data, report
from segtune.data.pairs import Pair, find_pairs, split_pairs
from segtune.data.portraits import make_portraits
from segtune.data.transforms import build_transform
from segtune.decoders.deeplabv3plus import DeepLabV3Plus
from segtune.decoders.fcn8s import FCN8s
from segtune.losses import bce_loss, dice_bce_loss, dice_loss
from segtune.model import SegmentationModel
from segtune.taps import cut, set_output_stride

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

    `new` lists module paths of the backbone without pretrained weights.
    """

    model: SegmentationModel
    blocks: Mapping[str, Sequence[str]]
    weights: LoadedWeights
    new: tuple[str, ...]


def build_model(backbone: BackboneSettings, taps: Mapping[str, str], decoder: DecoderSettings) -> BuiltModel:
    """Build, load, cut and join.

    Raises:
        UserError: The taps do not fit the backbone or the decoder, or the weights cannot be had.
    """
    spec = BACKBONES[backbone.name]
    decoder_class: Any = DECODERS[decoder.name]
    missing = [role for role in decoder_class.roles if role not in taps]
    if missing or len(taps) > len(decoder_class.roles):
        raise UserError(
            f"The decoder {decoder.name} reads the taps {', '.join(decoder_class.roles)}; "
            f"came {', '.join(taps) or 'none'}. "
            f"Set {' '.join(f'taps.{role}=LAYER' for role in missing) or 'no others'}."
        )
    network = spec.build()
    weights = load_weights(spec, network, backbone.weights)
    if backbone.output_stride:
        set_output_stride(network, backbone.output_stride)
    trunk, features = cut(network, {role: taps[role] for role in decoder_class.roles}, spec)
    head = decoder_class(
        {role: feature.channels for role, feature in features.items()},
        {role: feature.stride for role, feature in features.items()},
        decoder,
    )
    kept = set(trunk.state_dict())
    lacking = [name for name in weights.missing if name in kept]
    if lacking:
        log.warning("The weights file lacks %s: they start anew and always train.", ", ".join(lacking))
    new = tuple(dict.fromkeys(name.rpartition(".")[0] for name in lacking))
    model = SegmentationModel(trunk, head, features, spec.mean, spec.std)
    return BuiltModel(model, spec.blocks, weights, new)


def build_loss(settings: LossSettings) -> Loss:
    """Choose a loss of `(logits, target)` and bind its settings."""
    options: dict[str, Any] = {"per_image": settings.per_image, "empty": settings.empty, "smooth": settings.smooth}
    weights: dict[str, Any] = {"dice_weight": settings.dice_weight, "bce_weight": settings.bce_weight}
    bound: dict[str, Any] = {"dice_bce": options | weights, "dice": options, "bce": {}}[settings.name]
    return partial(LOSSES[settings.name], **bound)


def build_optimizer(settings: OptimizerSettings, model: nn.Module, phase: PhaseSettings) -> torch.optim.Optimizer:
    """Make a fresh optimizer over what trains now.

    The backbone has its scaled rate; normalisation layers and biases have no weight decay.
    """
    groups: list[dict[str, Any]] = []
    for part, rate in (("backbone", phase.lr * phase.backbone_lr_scale), ("decoder", phase.lr)):
        trainable = [p for p in model.get_submodule(part).parameters() if p.requires_grad]
        for decay, chosen in (
            (settings.weight_decay, [p for p in trainable if p.ndim > 1]),
            (0.0, [p for p in trainable if p.ndim <= 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": part})
    betas = (settings.betas[0], settings.betas[1])
    return OPTIMIZERS[settings.name](
        groups, **({"momentum": settings.momentum} if settings.name == "sgd" else {"betas": betas})
    )


def build_schedule(settings: OptimizerSettings, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Warm up linearly over a share of the phase's `steps`, then follow the schedule down to zero."""
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


def build_splits(
    settings: DataSettings, seed: int, workers: int, progress: Progress | None = None, *, whole: bool = False
) -> dict[str, list[Pair]]:
    """Find, split and check the data; warnings are logged. With `whole` there is one split, `all`.

    Raises:
        UserError: The data has errors; all are listed.
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
    problems += check_data(splits, foreground(settings), workers=max(1, workers), progress=progress)
    errors = [problem for problem in problems if problem.level == "error"]
    if errors:
        raise UserError(f"The data in {root} cannot be used:\n{report(errors)}")
    if problems:
        log.warning("%s", report(problems))
    if settings.limit:
        splits["train"] = splits["train"][: settings.limit]
    return splits


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


def model_from_checkpoint(content: Mapping[str, Any], settings: Settings) -> SegmentationModel:
    """Rebuild a trained model from a loaded checkpoint; nothing is downloaded."""
    backbone = BackboneSettings(settings.backbone.name, "none", settings.backbone.output_stride)
    model = build_model(backbone, settings.taps, settings.decoder).model
    model.load_state_dict(content["model"])
    return model


def walk_phases(settings: Settings, weights: LoadedWeights) -> Iterator[tuple[str, PhaseSettings]]:
    """Give the phases in order; with random weights everything trains in each, at one rate."""
    for name, phase in settings.freeze.phases.items():
        yield name, phase if weights.source else replace(phase, backbone="all", backbone_lr_scale=1.0)
