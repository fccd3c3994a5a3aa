"""Values that Hydra's grammar lacks, and text that it would read as something else."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from segtune.cli.quoting import as_typed, check_texts, for_hydra, keep_text, quoted
from segtune.config.command_settings import EvaluateSettings, PlanSettings, PredictSettings, ProbeSettings
from segtune.config.schema import Settings
from segtune.errors import UserError


def read(override: str) -> object:
    """What Hydra reads; of a sweep the values of its jobs."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return parsed.value()
    return [OverridesParser.create().parse_override(f"x={job}").value() for job in parsed.sweep_string_iterator()]


@pytest.mark.parametrize(
    "value", ["Müller.jpg", "a (1).jpg", "it's (1)", "my photos/x", "C:\\x\\ü", "$HOME/é", "a=b", "plain"]
)
def test_paths_of_all_kinds_are_values(value: str) -> None:
    assert OverridesParser.create().parse_override(quoted(f"input={value}")).value() == value


@pytest.mark.parametrize("place", ["{split}/images", "images/{split}", "{split}", "{split}/*/a b_*.png", "**/*_sat"])
def test_patterns_of_places_are_values(place: str) -> None:
    override = for_hydra(f"data.images={place}", Settings)
    assert read(override) == place
    assert as_typed(override, Settings) == f"data.images={place}"


def test_paths_in_a_list_are_values() -> None:
    parsed = OverridesParser.create().parse_override(quoted("checkpoint=[ä.pt,b (1).pt,c.pt]"))
    assert parsed.value() == ["ä.pt", "b (1).pt", "c.pt"]


@pytest.mark.parametrize("argument", ["a=[a,b]", "a={b: 1}", "a='ü'", 'a="ü"', "a=1,2", "~a", "a=null", "a=1e-3", "a="])
def test_values_that_mean_more_stay_as_they_are(argument: str) -> None:
    assert quoted(argument) == argument


WORDS = (
    *("2026_11_28", "1_0", "1e3", "-5", "+5", ".5", "1.0", "01", "0x10", "1:30", "2026-11-28"),
    *("true", "True", "FALSE", "on", "no", "~", "~/x", "inf", "nan", "NaN", "it's", "a b", " a", "#1", "C:\\x"),
)


@pytest.mark.parametrize("word", WORDS)
def test_text_settings_keep_their_text(word: str) -> None:
    for name, schema in (
        ("run_dir", Settings),
        ("data.root", EvaluateSettings),
        ("output", PredictSettings),
        ("taps.low", Settings),
        ("restore.rename.x", Settings),
        ("freeze.phases.all.stop_gradient", Settings),
        ("experiment", Settings),
        ("backbone", Settings),
        ("train.device", PredictSettings),
        ("hydra.sweep.dir", Settings),
    ):
        override = for_hydra(f"{name}={word}", schema)
        assert read(override) == word, name
        assert as_typed(override, schema) == f"{name}={word}"


@pytest.mark.parametrize("word", ["2026_11_28", "1e3", "true", "null", "-5"])
def test_text_is_kept_in_sweeps_and_lists(word: str) -> None:
    assert read(keep_text(f"data.root={word},b/{word}, {word}", Settings)) == [word, f"b/{word}", word]
    assert read(keep_text(f"checkpoint=[{word},b.pt]", EvaluateSettings)) == [word, "b.pt"]
    assert read(keep_text(f"+compare.mine=[{word},'a, b']", ProbeSettings).lstrip("+")) == [word, "a, b"]
    assert read(keep_text(f"freeze.phases.all.backbone=[{word},block5]", Settings)) == [word, "block5"]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=1_0", 10),
        ("seed=3,4", [3, 4]),
        ("data.foreground=[1,2]", [1, 2]),
        ("data.foreground=7", 7),
        ("freeze.phases.all.backbone=3", 3),
        ("freeze.phases.all.lr=1e-3", 0.001),
        ("data.invert=true", True),
        ("augment=null", None),
        ("augment.transforms.Blur.p=0.5", 0.5),
        ("decoder.atrous_rates=[6,12,18]", [6, 12, 18]),
        ("no_such=1e3", 1000.0),
    ],
)
def test_what_is_no_text_stays_what_it_was(override: str, value: object) -> None:
    assert for_hydra(override, Settings) == override
    assert read(override) == value


def test_null_is_null_only_where_a_setting_may_be_null() -> None:
    assert read(keep_text("run_dir=null", Settings)) is None
    assert read(keep_text("data.root=null", PlanSettings)) is None
    assert read(keep_text("data.root=null", Settings)) == "null"
    assert read(keep_text("run_dir='null'", Settings)) == "null"


def test_text_that_yaml_has_read_as_a_number_and_empty_text_are_refused() -> None:
    """A file with `run_dir: 2026_11_28`, without quotes: what was typed is lost."""
    values = {
        "seed": 3,
        "run_dir": 20261128,
        "data": {"root": "", "foreground": 1, "groups": None},
        "restore": {"exclude": ["a", 1000.0], "rename": {"encoder.": ""}},
        "taps": {"low": True, "high": " "},
        "freeze": {"phases": {"all": {"freeze": [620], "backbone": [{60: None}]}}},  # [10:20] and [60:]
    }
    with pytest.raises(UserError) as error:
        check_texts(values, Settings)
    assert str(error.value) == (
        "7 settings are wrong:\n"
        "  run_dir: got 20261128; expected text. In a YAML file put it in quotes: '…'.\n"
        "  data.root: got ''; expected text that is not empty.\n"
        "  restore.exclude: got 1000.0; expected text. In a YAML file put it in quotes: '…'.\n"
        "  taps.low: got True; expected text. In a YAML file put it in quotes: '…'.\n"
        "  taps.high: got ''; expected text that is not empty.\n"
        "  freeze.phases.all.freeze: got 620, which YAML makes of 10:20 too; expected text. In a YAML file put it in "
        "quotes: '…'.\n"
        "  freeze.phases.all.backbone: got {60: None}; expected text. In a YAML file put it in quotes: '…'."
    )
    check_texts({"seed": 3, "run_dir": "20261128", "restore": {"rename": {"encoder.": ""}}}, Settings)
