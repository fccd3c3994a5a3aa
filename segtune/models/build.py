"""Build a model from settings: backbone, weights, taps and decoder."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from segtune.config.model_settings import BackboneSettings, DecoderSettings
from segtune.config.schema import RunSettings
from segtune.errors import UserError, nearest
from segtune.models.backbones.registry import spec_of
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.decoders.registry import DECODERS
from segtune.models.dilation import set_output_stride
from segtune.models.layer_info import LayerInfo, default_taps, describe_network
from segtune.models.model import SegmentationModel
from segtune.models.pretrained import LoadedWeights, load_weights
from segtune.models.restore import Restored
from segtune.models.tap_scale import measure_scale
from segtune.models.taps import FeatureInfo, StopGradient, cut

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltModel:
    """A model, the spec of its backbone, and where its weights come from.

    `new` lists module paths without pretrained weights; `stops` holds the modules that can stop gradients, by the name
    that a phase's `stop_gradient` uses.
    """

    model: SegmentationModel
    spec: BackboneSpec
    weights: LoadedWeights
    new: tuple[str, ...]
    stops: Mapping[str, StopGradient]
    restored: Restored | None = None

    @property
    def blocks(self) -> Mapping[str, Sequence[str]]:
        """The blocks of the backbone: module paths by name."""
        return self.spec.blocks


def build_model(
    backbone: BackboneSettings, taps: Mapping[str, str], decoder: DecoderSettings, stop_gradients: Collection[str] = ()
) -> BuiltModel:
    """Return a model: a backbone with its weights, cut at the taps, joined with a decoder, and its features' scale.

    Args:
        backbone: Which network, with which weights.
        taps: Role to layer name, or to `auto`: the last layer of the stride that the decoder declares for the role.
        decoder: Which decoder.
        stop_gradients: Layers that gradients must not pass in some phase: of the backbone as in `taps`, or `decoder.…`.

    Raises:
        UserError: The taps do not fit the backbone or the decoder, a layer of `stop_gradients` does not exist, or the
            weights cannot be loaded.
    """
    built = assemble(backbone, taps, decoder, stop_gradients)
    measure_scale(built.model, pretrained=built.weights.source is not None)
    return built


def assemble(
    backbone: BackboneSettings, taps: Mapping[str, str], decoder: DecoderSettings, stop_gradients: Collection[str] = ()
) -> BuiltModel:
    """Return a model as `build_model` does, but with a scale of 1: for weights that bring their own."""
    spec = spec_of(backbone.name)
    network = spec.build()
    taps = choose_taps(network, spec, taps, decoder)
    weights = load_weights(spec, network, backbone.weights)
    if backbone.output_stride:
        set_output_stride(network, backbone.output_stride, spec.name)
    stops = {name: StopGradient() for name in stop_gradients}
    inside = {name: stop for name, stop in stops.items() if not _of_decoder(name)}
    trunk, features = cut(network, taps, spec, inside)
    head = build_decoder(decoder, features)
    kept = set(trunk.state_dict())
    lacking = [name for name in weights.missing if name in kept]
    if lacking:
        log.warning("The weights file lacks %s: they start from random values and always train.", ", ".join(lacking))
    new = dict.fromkeys("backbone." + name.rpartition(".")[0] for name in lacking)
    model = SegmentationModel(trunk, head, features, spec.mean, spec.std)
    for name in stops.keys() - inside.keys():
        _stop_in_decoder(model, name, stops[name])
    return BuiltModel(model, spec, weights, (*new, "decoder"), stops)


def build_decoder(settings: DecoderSettings, features: Mapping[str, FeatureInfo | LayerInfo]) -> nn.Module:
    """Return a decoder for the features of each role.

    Raises:
        UserError: The features do not fit the decoder.
    """
    channels = {role: feature.channels for role, feature in features.items()}
    return DECODERS[settings.name](channels, {role: feature.stride for role, feature in features.items()}, settings)


def choose_taps(
    network: nn.Module, spec: BackboneSpec, taps: Mapping[str, str], decoder: DecoderSettings
) -> dict[str, str]:
    """Return the taps in the order of the decoder's roles, with a layer in place of each `auto`.

    Args:
        network: The whole backbone with its own strides, which `auto` uses.
        spec: The backbone's spec.
        taps: Role to layer name or `auto`.
        decoder: Which decoder.

    Raises:
        UserError: Roles are missing or unknown, or the backbone has no layer of a stride that the decoder declares.
    """
    decoder_class = DECODERS[decoder.name]
    missing = [role for role in decoder_class.roles if role not in taps]
    if missing or len(taps) > len(decoder_class.roles):
        raise UserError(
            f"The decoder {decoder.name} reads the taps {', '.join(decoder_class.roles)}; "
            f"got {', '.join(taps) or 'none'}. "
            f"Set {' '.join(f'taps.{role}=LAYER' for role in missing) or 'no others'}."
        )
    chosen: dict[str, str] = {}
    if "auto" in taps.values():
        chosen = default_taps(describe_network(network, spec, (256, 320)), decoder_class.strides)
    return {role: chosen[role] if taps[role] == "auto" else taps[role] for role in decoder_class.roles}


def _of_decoder(layer: str) -> bool:
    return layer in ("decoder", "logits") or layer.startswith("decoder.")


def _stop_in_decoder(model: SegmentationModel, name: str, stop: StopGradient) -> None:
    modules = dict(model.named_modules())
    path = "decoder" if name == "logits" else name
    if path not in modules:
        known = [path for path in modules if path.startswith("decoder.")]
        raise UserError(f"stop_gradient={name}: the decoder has no such module.{nearest(name, known)}")
    modules[path].register_forward_hook(partial(_pass_stop, stop))


def _pass_stop(stop: StopGradient, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return stop(output)  # type: ignore[no-any-return]


def gradient_stops(settings: RunSettings) -> list[str]:
    """Return the layers at which some phase stops gradients, each once."""
    return list(dict.fromkeys(phase.stop_gradient for phase in settings.freeze.phases.values() if phase.stop_gradient))
