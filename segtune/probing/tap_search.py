"""Tap search: choose candidate layers, and find the group of layers with the best probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from segtune.errors import UserError
from segtune.models.layer_info import BackboneSummary, Group, LayerInfo
from segtune.models.module_paths import matching
from segtune.probing.probe import Probe
from segtune.runtime.sampling import evenly_spaced

#: The most candidates that are chosen if the settings name none.
MOST_CANDIDATES = 40


@dataclass(frozen=True)
class Findings:
    """The result of a tap search: the mean Dice of each group measured, and the `best` layers, in order of depth.

    `steps` holds for each step of the greedy search the candidates, each with the group that it forms with the layers
    chosen before.
    """

    dices: Mapping[Group, float]
    steps: tuple[Mapping[str, Group], ...]
    best: Group

    def at_step(self, step: int) -> dict[str, float]:
        """Return the Dice of each candidate together with the layers chosen before a step, from 0; -1 is the last."""
        return {name: self.dices[group] for name, group in self.steps[step].items()}


def candidates(
    summary: BackboneSummary, network: nn.Module, asked: Sequence[str] | None, lacking: Sequence[str]
) -> list[str]:
    """Return the layers to probe, in the order of computation.

    Without `asked` these are the layers that a convolution or a pooling of the network itself reads: outputs of
    activations and sums rather than of bare convolutions. Of more than `MOST_CANDIDATES`, evenly spaced ones are taken.
    Layers that need weights which are `lacking` are left out.

    Raises:
        UserError: A name or a pattern of `asked` matches nothing or returns no map, or needs lacking weights.
    """
    place = {name: index for index, name in enumerate(summary.nodes)}
    able = pretrained(summary, lacking)
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
            found.add(summary.find(item).name)
    if late := sorted(found - set(names.values())):
        raise UserError(
            f"layers: {', '.join(late)} would be probed on random weights, because the weights file lacks some. "
            "Leave these layers out, or use another weights file."
        )
    return sorted(found, key=place.__getitem__)


def pretrained(summary: BackboneSummary, lacking: Sequence[str]) -> list[LayerInfo]:
    """Return the layers before the first one whose weights are lacking."""
    place = {name: index for index, name in enumerate(summary.nodes)}
    first = min((place[node] for node in summary.nodes if _owns(node, lacking)), default=len(place))
    return [layer for layer in summary.layers if place[layer.name] < first]


def _owns(node: str, tensors: Sequence[str]) -> bool:
    return any(tensor.startswith(f"{node}.") for tensor in tensors)


def search(
    probe: Probe, layers: Sequence[str], roles: int, also: Sequence[Group], summary: BackboneSummary
) -> Findings:
    """Return the result of a greedy search: the best single layer, then the best one to add to it, and so on.

    Args:
        probe: Fits and measures the classifiers.
        layers: The candidates.
        roles: The number of layers to find.
        also: Other groups to measure, in the last step.
        summary: The summary of the backbone, for the order of its layers.

    Raises:
        UserError: There are too few candidates.
    """
    place = {layer.name: index for index, layer in enumerate(summary.layers)}
    steps: list[Mapping[str, Group]] = []
    dices: dict[Group, float] = {}
    best: Group = ()
    for size in range(1, roles + 1):
        groups = {name: _ordered({*best, name}, place) for name in layers if name not in best}
        tried = {name: group for name, group in groups.items() if _fits(group, summary)}
        if size < roles:  # leave out what no other candidate can complete
            tried = {name: group for name, group in tried.items() if _leads_on(group, layers, place, summary)}
        if not tried:
            raise UserError(f"{len(layers)} candidates are too few for {roles} taps. Name more (layers=[…]).")
        extra = [group for group in also if group not in tried.values() and group not in dices] if size == roles else []
        dices |= probe.measure(probe.fit([*tried.values(), *extra]))
        best = max(tried.values(), key=lambda group: dices[group])
        steps.append(tried)
    return Findings(dices, tuple(steps), best)


def _ordered(names: set[str], place: Mapping[str, int]) -> Group:
    return tuple(sorted(names, key=place.__getitem__))


def _fits(group: Group, summary: BackboneSummary) -> bool:
    """Return whether strides do not fall with depth, as the decoders require."""
    strides = [summary.by_name[name].stride for name in group]
    return strides == sorted(strides)


def _leads_on(group: Group, layers: Sequence[str], place: Mapping[str, int], summary: BackboneSummary) -> bool:
    return any(_fits(_ordered({*group, name}, place), summary) for name in layers if name not in group)


def row(group: Group, dice: float, summary: BackboneSummary, note: str = "") -> dict[str, Any]:
    """Return a row of `probe.csv`: the layers' facts, joined by ` + ` where there are several."""
    layers = [summary.by_name[name] for name in group]
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
    """Return a receptive field as text: one number for a square, and a + if the layer depends on the whole image."""
    height, width = layer.receptive_field
    return (str(height) if height == width else f"{height} x {width}") + ("+" if layer.sees_all else "")
