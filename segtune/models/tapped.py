"""A backbone with its taps: built once and described, before it is cut."""

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
    """An uncut backbone, the facts about its layers, and for each role the `names` asked for and the `layers` meant."""

    network: nn.Module
    anatomy: BackboneSummary
    names: Mapping[str, str]
    layers: Mapping[str, LayerInfo]

    @property
    def nodes(self) -> dict[str, str]:
        """The node of each role."""
        return {role: layer.name for role, layer in self.layers.items()}

    def cut(self) -> tuple[nn.Module, dict[str, FeatureInfo]]:
        """Cut the network at its taps, see `segtune.models.taps.cut`; its modules are taken over.

        Raises:
            UserError: Two roles name one layer, or the roles are not in the order of depth.
        """
        return cut(self.network, self.names, self.anatomy.spec, found=self.nodes)

    def check_size(self, size: tuple[int, int]) -> None:
        """Check that pictures of a size (height, width), the one described, leave the deepest tap a map.

        Raises:
            UserError: They are too small.
        """
        deepest = list(self.layers.values())[-1]
        if min(deepest.height, deepest.width) < 2:
            raise UserError(
                f"Pictures of {size[0]} x {size[1]} pixels are too small for the deepest tap, {deepest.name}: its map "
                f"would be of {deepest.height} x {deepest.width} pixels, and could not tell where anything is. Its "
                f"stride is {deepest.stride}: give {2 * deepest.stride} pixels or more (data.image_size), or a "
                "shallower tap."
            )


def build_tapped(settings: RunSettings, size: tuple[int, int]) -> TappedBackbone:
    """Build a backbone with random weights, and find the layers of its taps for pictures of `size` (height, width).

    Raises:
        UserError: The backbone cannot be traced, the size does not fit it, or a tap is no layer or gives no map.
    """
    spec, output_stride = spec_of(settings.backbone.name), settings.backbone.output_stride
    network = original = spec.build()
    if output_stride:
        original = without_values(network)
        set_output_stride(network, output_stride, spec.name)
    anatomy = describe_network(network, spec, size)
    names = choose_taps(original, spec, settings.taps, settings.decoder)
    return TappedBackbone(network, anatomy, names, {role: anatomy.find(name) for role, name in names.items()})
