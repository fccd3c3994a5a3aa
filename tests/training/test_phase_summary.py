"""The facts of a phase: spans and lines by hand."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from segtune.config.data_settings import AugmentSettings, DataSettings
from segtune.config.loss_settings import BCESettings
from segtune.config.training_settings import FreezeSettings, OptimizerSettings, PhaseSettings
from segtune.models.build import BuiltModel
from segtune.models.pretrained import LoadedWeights
from segtune.training.freezing import Scope
from segtune.training.phase_summary import _decoder, _spans, brief, everything, facts, own_scale_lines
from segtune.training.phases import Phase, plan_phases

PARTS = {"stem": (0, 10), "one": (5, 5), "two": (3, 9), "three": (0, 4), "four": (1, 1), "decoder": (2, 2)}


def test_neighbouring_blocks_are_joined() -> None:
    assert _spans(PARTS, lambda trainable, _: trainable > 0) == "one … two, four, decoder"
    assert _spans(PARTS, lambda trainable, total: trainable < total) == "stem, two … three"
    assert _spans(PARTS, lambda *_: True) == "stem … four, decoder"
    assert _spans(PARTS, lambda *_: False) == ""
    assert _spans(PARTS, lambda *_: True, "decoder.classifier") == "stem … four, decoder.classifier"


@pytest.mark.parametrize(
    ("crop", "tile", "expected"),
    [
        (None, None, []),
        ({"scale": [0.5, 1.0], "ratio": [1.0, 1.0]}, None, []),
        (
            {"object_fraction": 0.33, "per_image": 5},
            512,
            [
                "Training sees the images at their own size, in crops of 64 x 96 pixels, 33% of them centred on the "
                "object, 5 of each image in an epoch.",
                "Validation sees the images at their own size, in tiles of 512 x 512 pixels that share 25%.",
            ],
        ),
        (
            {"object_fraction": 0},
            None,
            [
                "Training sees the images at their own size, in crops of 64 x 96 pixels, 0% of them centred on the "
                "object.",
                "Validation resizes whole images to 64 x 96 pixels, where objects have another size than in those "
                "crops. To validate at their own size: data.eval_tile=128.",
            ],
        ),
    ],
)
def test_what_is_seen_at_its_own_size(crop: dict[str, Any] | None, tile: int | None, expected: list[str]) -> None:
    data = DataSettings("folder", "photos", image_size=[64, 96], eval_tile=tile)
    settings: Any = SimpleNamespace(data=data, augment=AugmentSettings(crop))
    assert own_scale_lines(settings) == expected


def test_a_decoder_is_named_by_what_trains_of_it() -> None:
    """The fewest modules that hold what trains, and what does not; modules without parameters do not matter."""
    join, score = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1)), nn.Conv2d(1, 1, 1)
    decoder = nn.Module()
    decoder.join, decoder.score = join, score
    assert _decoder(decoder, trains=True) == "decoder"
    join.requires_grad_(False)
    assert (_decoder(decoder, trains=True), _decoder(decoder, trains=False)) == ("decoder.score", "decoder.join")
    join[0].requires_grad_(True)
    assert _decoder(decoder, trains=True) == "decoder.join.0, decoder.score"
    assert _decoder(decoder, trains=False) == "decoder.join.2"
    many = nn.Sequential(*(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)) for _ in range(6)))
    for unit in many:
        unit[1].requires_grad_(False)
    assert _decoder(many, trains=False) == "decoder.0.1, decoder.1.1, decoder.2.1, decoder.3.1 and 2 more"


def test_facts_name_the_layers_of_the_decoder(built_of: Callable[[str], BuiltModel], quick: None) -> None:
    built = replace(built_of("resnet50_deeplabv3plus"), new=())
    given = {"late": PhaseSettings(epochs=1, lr=0.1, backbone=1, freeze=["80:90", "decoder.aspp"])}
    settings: Any = SimpleNamespace(
        freeze=FreezeSettings(given),
        optimizer=OptimizerSettings("sgd"),
        train=SimpleNamespace(images_per_batch=1),
        data=SimpleNamespace(size=(64, 64)),
        loss=BCESettings(),
    )
    built = replace(built, weights=LoadedWeights("a file"))
    (phase,) = plan_phases(settings, built)
    found = facts(built, phase, settings, SimpleNamespace(dtype=torch.float32))  # type: ignore[arg-type]
    assert found["trains"] == "layer3, decoder.project, decoder.refine, decoder.classifier"
    assert found["frozen"] == "stem … layer3, decoder.aspp"
    assert brief(found, phase.settings)[1] == (
        "frozen  stem … layer3, decoder.aspp; freeze=[80:90,decoder.aspp] wins over backbone=1"
    )


FACTS: dict[str, Any] = {
    "trains": "one, decoder",
    "frozen": "stem",
    "trainable": 1234,
    "parameters": 5678,
    "backward_stops": "block1.conv",
    "optimizer": "adamw",
    "optimizer_bytes": 2_500_000,
}


def test_the_lines_of_a_phase() -> None:
    phase = PhaseSettings(epochs=3, lr=1e-3, backbone_lr_scale=0.1)
    assert brief(FACTS, phase) == [
        "trains  one, decoder",
        "frozen  stem",
        "1,234 of 5,678 parameters train, 2.5 MB of optimizer state",
        "gradients stop at block1.conv",
        "epochs  3, adamw at 0.001, the backbone at 0.0001",
    ]


@pytest.mark.parametrize(
    ("facts", "given", "line", "text"),
    [
        ({}, {"steps": 7, "layer_decay": 0.5}, -1, "steps   7, adamw at 0.1, the backbone at 0.1 times 0.5 for each "),
        ({}, {"epochs": 9, "until": "plateau", "patience": 2}, -1, "epochs  9 at most, until 2 epochs bring no better"),
        ({"trains": "decoder"}, {"epochs": 1, "backbone_lr_scale": 0.1}, -1, "epochs  1, adamw at 0.1"),
        ({}, {"epochs": 1, "batchnorm": "frozen"}, 1, "frozen  stem; BatchNorm of the whole backbone"),
        ({"frozen": ""}, {"epochs": 1}, 1, "frozen  nothing"),
        ({}, {"epochs": 1, "freeze": [":9", "re:.*bn"]}, 1, "frozen  stem; freeze=[:9,re:.*bn]"),
        (
            {},
            {"epochs": 1, "freeze": ["one"], "backbone": ["one", "two"], "decoder": ["score"]},
            1,
            "frozen  stem; freeze=[one] wins over backbone=[one,two] and decoder=[score]",
        ),
        ({}, {"epochs": 1, "freeze": list("abcdefgh")}, 1, "frozen  stem; freeze=[a,b,c,d,e,f and 2 more]"),
        ({"trains": "decoder.a, decoder.b and 2 more"}, {"epochs": 1}, -1, "epochs  1, adamw at 0.1"),
        ({"trains": "decoder.a"}, {"epochs": 1, "batchnorm": "frozen"}, 1, "frozen  stem"),
    ],
)
def test_what_a_phase_adds_to_its_lines(facts: dict[str, Any], given: dict[str, Any], line: int, text: str) -> None:
    found = brief(FACTS | facts, PhaseSettings(lr=0.1, **given))[line]
    assert found == text if line != -1 or "backbone" not in found else found.startswith(text)


def test_everything_trains_in_the_phase_that_costs_are_compared_with() -> None:
    given = PhaseSettings(
        epochs=2, lr=0.1, backbone=1, stop_gradient="stem", batchnorm="frozen", weight_decay=0.5, freeze=["stem"]
    )
    found = everything(Phase("head", given, Scope(("decoder",))))
    assert found.scope == Scope(("backbone", "decoder"))
    assert found.settings == replace(
        given, backbone="all", decoder="all", freeze=[], stop_gradient=None, batchnorm="train"
    )
    assert (found.settings.lr, found.settings.weight_decay) == (0.1, 0.5)
