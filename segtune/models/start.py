"""The model that a run begins with."""

import logging
from dataclasses import replace

from segtune.config.schema import RunSettings
from segtune.errors import UserError
from segtune.models.architecture import layer_weights
from segtune.models.backbones.registry import spec_of
from segtune.models.build import BuiltModel, build_model, gradient_stops
from segtune.models.module_paths import owners, within
from segtune.models.pretrained import LoadedWeights, home_of
from segtune.models.restore import restore
from segtune.models.state_dicts import BATCH_COUNTER
from segtune.models.tap_scale import measure_scale

log = logging.getLogger(__name__)

#: The source of weights that are not loaded but taken for granted.
ASSUMED = "pretrained weights, assumed"


def build_start(settings: RunSettings, *, assume_pretrained: bool = False) -> BuiltModel:
    """Return the model that a run begins with: pretrained, and restored from another file if the settings say so.

    Where `backbone.weights=auto` finds none, `check_pretrained` tells.

    Args:
        settings: The run's settings.
        assume_pretrained: Do not look for ImageNet weights if there are any; the values stay random.

    Raises:
        UserError: Taps, gradient stops, weights or the file to restore cannot be used.
    """
    backbone, restores = settings.backbone, settings.restore
    if restores.checkpoint and restores.scope != "decoder" and backbone.weights == "auto":
        # The file may have all that ImageNet weights would be loaded for.
        built, share = _restored(_build(settings, "none"), settings)
        if share >= 0.5:
            return built
    assumes = assume_pretrained and backbone.weights in ("auto", "imagenet")
    if assumes and any(home_of(spec_of(backbone.name).architecture)):
        built = replace(_build(settings, "none"), weights=LoadedWeights(ASSUMED))
    else:
        built = _build(settings, backbone.weights)
    return _restored(built, settings)[0] if restores.checkpoint else built


def check_pretrained(built: BuiltModel, settings: RunSettings) -> None:
    """Check that pretrained weights were found if some are wanted; the built-in data do with a warning.

    Raises:
        UserError: There are none for data of the user's own; the message says how to get some.
    """
    trouble = built.weights.trouble
    if not trouble:
        return
    if settings.data.name != "portraits":
        raise UserError(f"backbone.weights={settings.backbone.weights}: {trouble}")
    log.warning(
        "%s\nThe backbone starts from RANDOM weights, so none of it is frozen. Expect a lower Dice. "
        "With data of your own this is an error.",
        trouble[0].upper() + trouble[1:],
    )


def _build(settings: RunSettings, weights: str) -> BuiltModel:
    backbone = replace(settings.backbone, weights=weights)
    return build_model(backbone, settings.taps, settings.decoder, gradient_stops(settings))


def _restored(built: BuiltModel, settings: RunSettings) -> tuple[BuiltModel, float]:
    """Return a model with the tensors of a file, and which fraction of the weights of the backbone's layers they are.

    Without any, the backbone counts as random: what else fits, such as BatchNorm's vectors, restores no network.
    """
    report = restore(built.model, settings.restore, settings.backbone.name)
    restored, tensors = set(report.restored), built.model.state_dict()
    weights_of_layers = layer_weights(tensors)
    share = len(weights_of_layers & restored) / len(weights_of_layers)
    names = [name for name in tensors if not name.endswith(BATCH_COUNTER)]
    lacking = {name.rpartition(".")[0] for name in names if name not in restored}
    weights, new = built.weights, built.new
    if weights.source is None and share:
        weights, new = LoadedWeights(report.source, trouble=weights.trouble), ("backbone", "decoder")
    measure_scale(built.model, pretrained=weights.source is not None, keep=restored)
    left = [path for path in owners(built.model) if path in lacking and within(path, new)]
    return replace(built, weights=weights, new=tuple(left), restored=report), share
