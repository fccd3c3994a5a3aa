"""Any other CNN of timm, described by timm's metadata."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import timm
import torch
from timm.models import group_parameters

from segtune.errors import UserError, close_matches
from segtune.models.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec
from segtune.models.module_paths import cover


@cache
def timm_spec(name: str) -> BackboneSpec:
    """Return the spec of a timm network.

    Raises:
        UserError: timm cannot build it here.
    """
    build = partial(timm.create_model, name, num_classes=0)
    try:
        with torch.device("meta"):
            network: Any = build()
    except Exception as error:  # an unknown tag of weights, or a network that needs more than PyTorch
        raise UserError(f"backbone.name={name}: timm cannot build it: {str(error).splitlines()[0]}") from error
    config = network.pretrained_cfg
    return BackboneSpec(
        name,
        build,
        name,
        tuple(config.get("mean", IMAGENET_MEAN)),
        tuple(config.get("std", IMAGENET_STD)),
        _timm_blocks(network),
        stages=_timm_stages(network),
    )


def similar_networks(name: str, most: int) -> list[str]:
    """Return the names of timm networks closest to a name."""
    known = [other for other in timm.list_models() if other != name]
    family = name.split(".")[0].split("_")[0]
    near = close_matches(name, known, most)
    return list(dict.fromkeys([*near, *(other for other in known if other.startswith(family))]))[:most]


def _timm_stages(network: Any) -> tuple[str, ...]:
    info = getattr(network, "feature_info", None) or []
    entries = info if isinstance(info, list) else info.info
    return tuple(entry["module"] for entry in entries if entry["module"])


def _timm_blocks(network: Any) -> dict[str, tuple[str, ...]]:
    """Divide a network into blocks as timm does for layer-wise learning rates, from the input to the deepest."""
    try:
        groups: Mapping[int, Sequence[str]] = group_parameters(network, network.group_matcher(coarse=True))
    except (AttributeError, AssertionError):  # timm has no division of it, or no coarse one
        return {path: (path,) for path, child in network.named_children() if list(child.parameters())}
    blocks: dict[str, tuple[str, ...]] = {}
    for number in sorted(groups):
        paths = cover(network, groups[number])
        ends = {0: "stem", max(groups): "head"}
        blocks[paths[0] if len(paths) == 1 else ends.get(number, f"group{number}")] = paths
    return blocks
