"""Which layers to tap: candidates, what a probe says of them alone and together, and the tap map that follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from segtune.errors import UserError
from segtune.models.layer_info import BackboneSummary, Group, LayerInfo
from segtune.models.module_paths import matching
from segtune.probing.probe import Probe
from segtune.runtime.sampling import evenly_spaced

#: The most candidates that are chosen without being asked for.
MOST_CANDIDATES = 40


@dataclass(frozen=True)
class Findings:
    """What a probe has found: the mean Dice of each group measured, and the `best` layers, in the order of depth.

    `steps` holds what was tried at each step of the greedy search: candidates, each with the group it makes with the
    layers found before.
    """

    dices: Mapping[Group, float]
    steps: tuple[Mapping[str, Group], ...]
    best: Group

    def at_step(self, step: int) -> dict[str, float]:
        """Return the Dice of each candidate with the layers found before a step, counted from 0; -1 is the last."""
        return {name: self.dices[group] for name, group in self.steps[step].items()}


def candidates(
    anatomy: BackboneSummary, network: nn.Module, asked: Sequence[str] | None, lacking: Sequence[str]
) -> list[str]:
    """Choose the layers to probe, in the order of computation.

    Without `asked` these are the layers that a convolution or a pooling of the network itself reads, for they are what
    the network works with: outputs of activations and sums rather than of bare convolutions. Of more than
    `MOST_CANDIDATES` some in regular distances are taken. Layers that need weights which are `lacking` are left out.

    Raises:
        UserError: A name or a pattern of `asked` matches nothing, or gives no map, or no layer has pretrained weights.
    """
    place = {name: index for index, name in enumerate(anatomy.nodes)}
    able = pretrained(anatomy, lacking)
    if asked is None:
        modules = dict(network.named_modules())
        bare = (nn.Conv2d, nn.BatchNorm2d)
        read = [layer.name for layer in able if layer.is_read and type(modules.get(layer.name)) not in bare]
        return evenly_spaced(read, MOST_CANDIDATES)
    names = {name: layer.name for layer in able for name in (layer.name, layer.keras) if name}
    found: set[str] = set()
    for item in asked:
        if item.startswith("re:"):
            found |= {names[name] for name in matching(item, names, "layers")}
        else:
            found.add(anatomy.find(item).name)
    if late := sorted(found - set(names.values())):
        raise UserError(f"layers: {', '.join(late)} would be probed on random weights: the weights file lacks some.")
    return sorted(found, key=place.__getitem__)


def pretrained(anatomy: BackboneSummary, lacking: Sequence[str]) -> list[LayerInfo]:
    """Return the layers in front of the first one whose weights are lacking."""
    place = {name: index for index, name in enumerate(anatomy.nodes)}
    first = min((place[node] for node in anatomy.nodes if _owns(node, lacking)), default=len(place))
    return [layer for layer in anatomy.layers if place[layer.name] < first]


def _owns(node: str, tensors: Sequence[str]) -> bool:
    return any(tensor.startswith(f"{node}.") for tensor in tensors)


def search(
    probe: Probe, layers: Sequence[str], roles: int, also: Sequence[Group], anatomy: BackboneSummary
) -> Findings:
    """Find the layers that together tell most, greedily: the best alone, then the best beside it, and so on.

    Args:
        probe: What fits and measures.
        layers: The candidates.
        roles: How many layers are wanted.
        also: Other groups to measure, at the end.
        anatomy: The network, for the order of its layers.
    """
    place = {layer.name: index for index, layer in enumerate(anatomy.layers)}
    steps: list[Mapping[str, Group]] = []
    dices: dict[Group, float] = {}
    best: Group = ()
    for size in range(1, roles + 1):
        groups = {name: _ordered({*best, name}, place) for name in layers if name not in best}
        tried = {name: group for name, group in groups.items() if _fits(group, anatomy)}
        if size < roles:  # what cannot be the start of a whole map is of no use
            tried = {name: group for name, group in tried.items() if _leads_on(group, layers, place, anatomy)}
        if not tried:
            raise UserError(f"{len(layers)} candidates are too few for {roles} taps. Name more (layers=[…]).")
        extra = [group for group in also if group not in tried.values() and group not in dices] if size == roles else []
        dices |= probe.measure(probe.fit([*tried.values(), *extra]))
        best = max(tried.values(), key=lambda group: dices[group])
        steps.append(tried)
    return Findings(dices, tuple(steps), best)


def _ordered(names: set[str], place: Mapping[str, int]) -> Group:
    return tuple(sorted(names, key=place.__getitem__))


def _fits(group: Group, anatomy: BackboneSummary) -> bool:
    """Return whether strides do not fall with depth, as the decoders want it."""
    strides = [anatomy.by_name[name].stride for name in group]
    return strides == sorted(strides)


def _leads_on(group: Group, layers: Sequence[str], place: Mapping[str, int], anatomy: BackboneSummary) -> bool:
    return any(_fits(_ordered({*group, name}, place), anatomy) for name in layers if name not in group)


def row(group: Group, dice: float, anatomy: BackboneSummary, note: str = "") -> dict[str, Any]:
    """Return a row of `probe.csv`: the layers' facts, joined by ` + ` where there are several."""
    layers = [anatomy.by_name[name] for name in group]
    return {
        "layers": _join(layers, lambda layer: layer.name),
        "keras": _join(layers, lambda layer: layer.keras or "-"),
        "stride": _join(layers, lambda layer: layer.stride),
        "channels": _join(layers, lambda layer: layer.channels),
        "receptive_field": _join(layers, field_of),
        "dice": round(dice, 4),
        "parameters": max(layer.parameters for layer in layers),
        "multiply_adds": max(layer.macs for layer in layers),
        "note": note,
    }


def _join(layers: Sequence[LayerInfo], text: Any) -> str:
    return " + ".join(str(text(layer)) for layer in layers)


def field_of(layer: LayerInfo) -> str:
    """Show a receptive field: one number for a square, and a + where the layer sees something of the whole picture."""
    height, width = layer.receptive_field
    return (str(height) if height == width else f"{height} x {width}") + ("+" if layer.sees_all else "")
