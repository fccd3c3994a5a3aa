"""The model that a run begins with."""

from dataclasses import replace

from segtune.config.model_settings import RestoreSettings
from segtune.config.schema import RunSettings
from segtune.models.build import BuiltModel, build_model, gradient_stops
from segtune.models.module_paths import owners, within
from segtune.models.pretrained import LoadedWeights
from segtune.models.restore import restore
from segtune.models.tap_scale import measure_scale


def build_start(settings: RunSettings) -> BuiltModel:
    """Return the model that a run begins with: pretrained, and restored from another file if the settings say so.

    Raises:
        UserError: Taps, gradient stops, weights or the file to restore cannot be used.
    """
    backbone, restores = settings.backbone, settings.restore
    if restores.checkpoint and restores.scope != "decoder" and backbone.weights == "auto":
        # The file may have all that ImageNet weights would be loaded for.
        alone = replace(backbone, weights="none")
        built = _restored(build_model(alone, settings.taps, settings.decoder, gradient_stops(settings)), restores)
        if built.weights.source:
            return built
    built = build_model(backbone, settings.taps, settings.decoder, gradient_stops(settings))
    return _restored(built, restores) if restores.checkpoint else built


def _restored(built: BuiltModel, settings: RestoreSettings) -> BuiltModel:
    report = restore(built.model, settings)
    restored = set(report.restored)
    names = [name for name in built.model.state_dict() if not name.endswith("num_batches_tracked")]
    lacking = {name.rpartition(".")[0] for name in names if name not in restored}
    weights, new = built.weights, built.new
    if weights.source is None and any(name.startswith("backbone.") for name in restored):
        weights, new = LoadedWeights(report.source), ("backbone", "decoder")
    measure_scale(built.model, pretrained=weights.source is not None, keep=restored)
    left = [path for path in owners(built.model) if path in lacking and within(path, new)]
    return replace(built, weights=weights, new=tuple(left), restored=report)
