"""A backbone with its taps: built once and summarised, before it is cut."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from segtune.config.schema import RunSettings
from segtune.errors import UserError
from segtune.models.backbones.registry import spec_of
from segtune.models.build import choose_taps
from segtune.models.dilation import set_output_stride
from segtune.models.layer_info import BackboneSummary, LayerInfo, describe_network, without_values
from segtune.models.taps import FeatureInfo, cut


@dataclass(frozen=True)
class TappedBackbone:
    """An uncut backbone, its summary, and for each role the tap's name in the settings and its layer."""

    network: nn.Module
    summary: BackboneSummary
    names: Mapping[str, str]
    layers: Mapping[str, LayerInfo]

    @property
    def nodes(self) -> dict[str, str]:
        """The node of each role."""
        return {role: layer.name for role, layer in self.layers.items()}

    def cut(self) -> tuple[nn.Module, dict[str, FeatureInfo]]:
        """Return the network cut at its taps, see `segtune.models.taps.cut`; it takes over the network's modules.

        Raises:
            UserError: Two roles name the same layer, or the roles are not in order of depth.
        """
        return cut(self.network, self.names, self.summary.spec, found=self.nodes)

    def check_size(self, size: tuple[int, int]) -> None:
        """Check that for images of `size`, the one of the summary, the deepest tap has more than one pixel per axis.

        Raises:
            UserError: The images are too small.
        """
        deepest = list(self.layers.values())[-1]
        if min(deepest.height, deepest.width) < 2:
            raise UserError(
                f"Images of {size[0]} x {size[1]} pixels are too small for the deepest tap, {deepest.name}: its map "
                f"would have {deepest.height} x {deepest.width} pixels. Its stride is {deepest.stride}: set "
                f"data.image_size to {2 * deepest.stride} or more, or choose a shallower tap."
            )


def build_tapped(settings: RunSettings, size: tuple[int, int]) -> TappedBackbone:
    """Return a backbone with random weights and the layers of its taps, for images of `size` (height, width).

    Raises:
        UserError: The backbone cannot be traced, the size does not fit it, or a tap is no layer or returns no map.
    """
    spec, output_stride = spec_of(settings.backbone.name), settings.backbone.output_stride
    network = original = spec.build()
    if output_stride:
        original = without_values(network)
        set_output_stride(network, output_stride, spec.name)
    summary = describe_network(network, spec, size)
    names = choose_taps(original, spec, settings.taps, settings.decoder)
    return TappedBackbone(network, summary, names, {role: summary.find(name) for role, name in names.items()})
