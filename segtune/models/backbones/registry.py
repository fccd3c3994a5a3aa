"""The backbones by name.

A spec holds what cannot be derived from the network: the order of its blocks, the normalisation its weights were
trained with, and the common names of its layers. The networks are timm's. Three have a spec written by hand; the specs
of all others are derived from timm's metadata.
"""

from collections.abc import Mapping

import timm

from segtune.config.renamed import timm_name
from segtune.errors import UserError, close_matches
from segtune.models.backbones.any_timm import similar_networks, timm_spec
from segtune.models.backbones.resnet50 import RESNET50
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.backbones.vgg16 import VGG16
from segtune.models.backbones.xception import XCEPTION

#: To add a backbone, write its spec in a file of its own and list it here.
BACKBONES: Mapping[str, BackboneSpec] = {spec.name: spec for spec in (VGG16, RESNET50, XCEPTION)}


def spec_of(name: str) -> BackboneSpec:
    """Return a backbone's spec by its name: one of `BACKBONES`, or any network of timm, such as `convnext_tiny`.

    The Hub's names of timm's networks, such as `hf_hub:timm/convnext_tiny.in12k`, count too.

    Raises:
        UserError: timm has no such network, or no such weights of it, or cannot build it here.
    """
    given, name = name, timm_name(name)
    if name in BACKBONES:
        return BACKBONES[name]
    if "/" in name:
        raise UserError(
            f"backbone.name={given}: of the networks on the Hugging Face Hub, segtune can build those of timm/. Name "
            f"the architecture of this one as timm does, and its weights by backbone.weights=PATH."
        )
    if not timm.is_model(name):
        near = [*close_matches(name, BACKBONES, 1), *similar_networks(name, 4)]
        raise UserError(
            f"backbone.name={name}: neither segtune nor timm {timm.__version__} has a network of this name. "
            f"The nearest: {', '.join(dict.fromkeys(near)) or 'none'}. timm.list_models() lists all."
        )
    return timm_spec(name)
