"""The layers of Keras Applications against Keras itself: names, channels and strides."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from segtune.models.backbones.registry import BACKBONES
from segtune.models.layer_info import BackboneSummary, describe
from segtune.models.taps import resolve

SIZE = 224

# Layers that PyTorch's networks do not have as such: inputs, zeros around an image, and all behind the last map.
ELSEWHERE = re.compile(r"input_layer|conv1_pad|pool1_pad|flatten|predictions")

# Names that Keras makes of a layer's kind and a number.
AUTOMATIC = re.compile(r"(add|conv2d|batch_normalization)(?:_(\d+))?")

LayersOf = Callable[[str], dict[str, SimpleNamespace]]


@pytest.fixture(scope="module")
def layers_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LayersOf]:
    """Return the layers of a network of Keras by name, in its order: their kind and output shape (height, width, C)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras

        @cache
        def layers(name: str) -> dict[str, SimpleNamespace]:
            keras.backend.clear_session()  # its automatic numbers go on within a session
            kinds: dict[str, Any] = {"vgg16": "VGG16", "resnet50": "ResNet50", "xception": "Xception"}
            with keras.device("meta"):
                network = getattr(keras.applications, kinds[name])(
                    weights=None, include_top=name == "vgg16", input_shape=(SIZE, SIZE, 3)
                )
            return {
                layer.name: SimpleNamespace(kind=type(layer).__name__, shape=tuple(layer.output.shape[1:]))
                for layer in network.layers
                if not ELSEWHERE.fullmatch(layer.name)
            }

        yield layers
        keras.backend.clear_session()


@pytest.fixture(scope="module")
def anatomy_of() -> Callable[[str], BackboneSummary]:
    return cache(lambda name: describe(BACKBONES[name], (SIZE, SIZE)))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_name_of_keras_is_known_and_no_other(name: str, layers_of: LayersOf) -> None:
    spec, layers = BACKBONES[name], layers_of(name)
    named = {layer for layer in layers if not AUTOMATIC.fullmatch(layer)}
    own = {alias for alias in spec.aliases if not AUTOMATIC.fullmatch(alias)}
    assert own == named
    numbered: dict[str, int] = {}
    for layer in layers.keys() - named:
        kind = AUTOMATIC.fullmatch(layer)[1]  # type: ignore[index]
        numbered[kind] = numbered.get(kind, 0) + 1
    # Keras counts from 0 and leaves the 0 out; old versions counted from 1. Where both have a name, it is ambiguous.
    assert set(spec.aliases) - own == {n for kind, count in numbered.items() for n in (kind, f"{kind}_{count}")}
    if name == "resnet50":  # whose layers have names today, but had numbers in old versions
        numbered |= {"activation": 49, "add": 16}
    assert set(spec.ambiguous) == {f"{kind}_{n}" for kind, count in numbered.items() for n in range(1, count)}
    assert set(layers) <= {*spec.aliases, *spec.ambiguous}


def test_numbers_mean_what_they_mean_in_keras(
    layers_of: LayersOf, anatomy_of: Callable[[str], BackboneSummary]
) -> None:
    """Of layers without a name, the one in front of it in Keras's order says where it is."""
    spec, summary = BACKBONES["xception"], anatomy_of("xception")
    order = list(layers_of("xception"))
    counts = {kind: sum(layer.startswith(kind) for layer in order) for kind in ("add", "conv2d", "batch_normalization")}
    assert counts == {"add": 12, "conv2d": 4, "batch_normalization": 4}
    for place, layer in enumerate(order):
        if not (match := AUTOMATIC.fullmatch(layer)):
            continue
        kind, index = match[1], int(match[2] or 0)
        before = next(name for name in reversed(order[:place]) if not AUTOMATIC.fullmatch(name))
        block = int(re.match(r"block(\d+)_", before)[1]) - 1  # type: ignore[index]  # timm's block
        part = {"add": "add", "conv2d": "skip", "batch_normalization": "skipbn"}[kind]
        meanings = spec.ambiguous.get(layer) or (spec.aliases[layer],)
        assert meanings[-1 if index else 0] == f"block{block}.{part}"
        old = spec.ambiguous.get(f"{kind}_{index + 1}") or (spec.aliases[f"{kind}_{index + 1}"],)
        assert old[0] == f"block{block}.{part}"
        assert f"block{block}.{part}" in summary.by_name


# Where a stage begins Keras's ResNet50 strides in the first convolution of a unit, as published, timm's in the second.
STRIDES_LATER = {f"conv{stage}_block1_1_{layer}" for stage in (3, 4, 5) for layer in ("conv", "bn", "relu")}


@pytest.mark.parametrize("name", BACKBONES)
def test_channels_and_strides_are_those_of_keras(
    name: str, layers_of: LayersOf, anatomy_of: Callable[[str], BackboneSummary]
) -> None:
    spec, summary = BACKBONES[name], anatomy_of(name)
    other = set()
    for layer, theirs in layers_of(name).items():
        paths = spec.ambiguous.get(layer, (spec.aliases.get(layer, ""),))
        ours = summary.by_name[resolve(paths[-1], list(summary.nodes), spec)]
        assert ours.channels == theirs.shape[-1], layer
        if len(theirs.shape) == 1:  # VGG16's fully connected layers see the whole map
            assert (layer, ours.stride) in {("fc1", 32), ("fc2", 32)}
            continue
        # Keras's Xception has an unpadded stem, so its maps are a little smaller.
        if ours.stride != round(SIZE / theirs.shape[0]):
            other.add(layer)
            assert ours.stride * 2 == round(SIZE / theirs.shape[0])
    assert other == (STRIDES_LATER if name == "resnet50" else set())


def test_names_of_one_layer_come_with_the_table(anatomy_of: Callable[[str], BackboneSummary]) -> None:
    summary = anatomy_of("xception")
    assert summary.find("block4_sepconv1_act").keras == "block4_sepconv1_act"
    assert summary.find("block3.rep.0").keras == "block4_sepconv1_act"
    assert summary.find("block12.add").keras == "add_12"
    assert summary.find("block5.add").keras == ""
