import pytest
import yaml

from segtune.cli.help import config_folder
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError

ROOT = config_folder()


def load(name: str):
    return yaml.safe_load((ROOT / f"{name}.yaml").read_text(encoding="utf-8"))


def values():
    return {
        "backbone": load("backbone/xception"),
        "taps": load("taps/xception_deeplabv3plus"),
        "decoder": load("decoder/deeplabv3plus"),
        "freeze": {"phases": {"all": {"epochs": 1, "lr": 1e-3}}},
        "data": {"name": "folder", "root": "photos"},
        "augment": {},
        "loss": {"name": "dice"},
        "optimizer": {"name": "adamw"},
        "train": {},
        "checkpoint": {},
    }


def problems(changes) -> str:
    settings = values()
    for name, value in changes.items():
        *groups, key = name.split(".")
        place = settings
        for group in groups:
            place = place[group]
        place[key] = value
    with pytest.raises(UserError) as error:
        parse(Settings, settings)
    return str(error.value)


def test_settings_are_frozen_and_typed() -> None:
    settings = parse(Settings, values())
    assert settings.data.size == (256, 256)
    with pytest.raises(AttributeError):
        settings.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backbone.name": ["resnet50"]}, "backbone.name: got ['resnet50']; expected: a valid string."),
        ({"backbone.output_stride": 4}, "backbone.output_stride: got 4; expected: 8, 16 or 32."),
        ({"train.batch_size": "abc"}, "train.batch_size: got 'abc'; expected: a valid integer, or 'auto'."),
        (
            {"freeze.phases": {"head": {"epochs": 1, "lr": 1, "momentum": 0.5}}},
            "freeze.phases.head.momentum: there is no such setting. Did you mean optimizer.momentum?",
        ),
        ({"train.batchsize": 3}, "train.batchsize: there is no such setting. Did you mean batch_size?"),
        ({"train.batch_size": 0}, "train.batch_size: got 0; expected: greater than or equal to 1, or 'auto'."),
        (
            {"data.foreground": "white"},
            "data.foreground: got 'white'; expected: 'auto' or 'nonzero', or a valid integer, or a valid list.",
        ),
        (
            {"freeze.phases": {}},
            "freeze: phases is empty; expected at least one phase.",
        ),
        (
            {"freeze.phases": {"head": {"epochs": 1, "lr": 1, "backbone": "top"}}},
            "freeze.phases.head.backbone: got 'top'; expected: a number of blocks, all, or a list of module paths, "
            "such as ['top'].",
        ),
        (
            {"freeze.phases": {"head": {"epochs": 1, "lr": 1, "freeze": ":60"}}},
            "freeze.phases.head.freeze: got ':60'; expected: a list, such as [':60'].",
        ),
        (
            {"freeze.phases": {"head": {"epochs": 1, "lr": 1, "decoder": "aspp"}}},
            "freeze.phases.head.decoder: got 'aspp'; expected: all, or a list of module paths, such as ['aspp'].",
        ),
        ({"optimizer.milestones": 8}, "optimizer.milestones: got 8; expected: a list, such as [8]."),
        (
            {"decoder.atrous_rates": [6, 12]},
            "decoder: atrous_rates: got [6, 12]; expected three dilation rates, such as [6, 12, 18].",
        ),
        (
            {"data.image_size": None},
            "data.image_size: got None; expected: a valid integer, or a valid list.",
        ),
        (
            {"freeze.decoder": "fcn8s"},
            "freeze: this policy trains parts of decoder=fcn8s by name, but the decoder is deeplabv3plus. "
            "Choose decoder=fcn8s, or another policy, such as freeze=two_phase.",
        ),
        (
            {"optimizer.schedule": "multistep"},
            "freeze.phases.all: schedule multistep needs milestones, the epochs after which the learning rate falls: "
            "optimizer.milestones=[8,11], or optimizer.milestone_steps; or those of the phase.",
        ),
        (
            {"optimizer.schedule": "poly", "optimizer.cycle": True},
            "freeze.phases.all: cycle needs the length of one: optimizer.decay_epochs=4, or optimizer.decay_steps; "
            "or those of the phase.",
        ),
        (
            {
                "optimizer.milestones": [1],
                "freeze.phases": {"all": {"epochs": 1, "lr": 1, "schedule": "multistep"}},
            },
            "freeze.phases.all: schedule multistep needs milestones, the epochs after which the learning rate falls: "
            "freeze.phases.all.milestones=[8,11], or freeze.phases.all.milestone_steps.",
        ),
        (
            {"freeze.phases": {"all": {"epochs": 1, "lr": 1, "schedule": "poly", "cycle": True}}},
            "freeze.phases.all: cycle needs the length of one: freeze.phases.all.decay_epochs=4, or "
            "freeze.phases.all.decay_steps.",
        ),
        (
            {"optimizer.betas": [0.9, 1]},
            "optimizer.betas[1]: got 1; expected: less than 1.",
        ),
        ({"data.val_share": 0.9}, "data: val_share and test_share together leave nothing to train on."),
    ],
)
def test_a_wrong_setting_is_named_with_what_came_and_what_was_expected(changes, text: str) -> None:
    assert problems({**changes, **({"data.test_share": 0.2} if "data.val_share" in changes else {})}) == (
        f"One setting is wrong:\n  {text}"
    )


def test_problems_of_all_groups_are_reported_at_once() -> None:
    text = problems({"seed": -1, "train.workers": "many", "loss.name": "focal", "optimizer.momentum": 2})
    assert text.startswith("4 settings are wrong:\n")
    named = {line.split(":")[0].strip() for line in text.splitlines()[1:]}
    assert named == {"seed", "train.workers", "loss.name", "optimizer.momentum"}
