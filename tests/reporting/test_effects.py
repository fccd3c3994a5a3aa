"""Main effects, by hand: plain means where the design is balanced, adjusted ones where it is not."""

import itertools
import random

import numpy as np
import pytest
from scipy import stats

from segtune.reporting.effects import Effect, main_effects

DECODERS = ["fcn8s", "fcn8s", "deeplab", "deeplab"]
RATES = ["0.1", "0.01", "0.1", "0.01"]


def means(effect: Effect) -> dict[str, float]:
    return {level.text: level.mean for level in effect.levels}


def test_in_a_balanced_design_means_are_plain_means() -> None:
    effects = main_effects({"decoder": DECODERS, "lr": RATES, "same": ["x"] * 4}, [0.5, 0.6, 0.7, 0.9])
    rate, decoder = sorted(effects.found, key=lambda effect: effect.size)
    assert [effect.name for effect in effects.found] == ["decoder", "lr"]  # the largest first
    assert means(decoder) == pytest.approx({"fcn8s": 0.55, "deeplab": 0.8})
    assert means(rate) == pytest.approx({"0.01": 0.75, "0.1": 0.6})
    assert [level.ends for level in rate.levels] == [(0.01, 0.01), (0.1, 0.1)]
    assert decoder.points == (("fcn8s", 0.5), ("fcn8s", 0.6), ("deeplab", 0.7), ("deeplab", 0.9))
    assert (effects.balanced, effects.unclear, effects.runs) == (True, (), 4)
    # One degree of freedom: each run is 0.025 off the sum of the effects.
    assert effects.residual == pytest.approx(0.05)
    margin = stats.t.ppf(0.975, 1) * 0.05
    assert decoder.interval == pytest.approx((0.25 - margin, 0.25 + margin))


def test_a_missing_combination_does_not_mislead() -> None:
    """deeplab failed at the good rate, so its plain mean, 0.7, is below that of fcn8s, 0.75, at both rates."""
    effects = main_effects({"decoder": DECODERS[:3], "lr": RATES[:3]}, [0.6, 0.9, 0.7])
    decoder = next(effect for effect in effects.found if effect.name == "decoder")
    assert means(decoder) == pytest.approx({"fcn8s": 0.75, "deeplab": 0.85})  # 0.1 more at the rate that both have
    assert [level.runs for level in decoder.levels] == [2, 1]
    assert (effects.balanced, effects.residual, decoder.interval) == (False, None, None)


def test_repeated_runs_count_once_for_the_other_settings() -> None:
    """Three seeds of one combination: the other setting's values still have equal weights."""
    effects = main_effects(
        {"decoder": [*DECODERS, "fcn8s", "fcn8s"], "lr": [*RATES, "0.1", "0.1"]}, [0.5, 0.7, 0.6, 0.8, 0.5, 0.5]
    )
    assert {effect.name: means(effect) for effect in effects.found} == {
        "lr": pytest.approx({"0.01": 0.75, "0.1": 0.55}),
        "decoder": pytest.approx({"fcn8s": 0.6, "deeplab": 0.7}),
    }
    assert not effects.balanced


def test_an_additive_world_is_found_again_whichever_runs_are_missing() -> None:
    generator = random.Random(0)
    bring = {"a": {"x": 0.1, "y": 0.02, "z": 0.0}, "b": {"p": 0.3, "q": 0.0}, "c": {"m": 0.0, "n": 0.05, "o": 0.01}}
    runs = generator.sample(list(itertools.product(*bring.values())), 12)
    dices = [0.4 + sum(bring[name][value] for name, value in zip(bring, run, strict=True)) for run in runs]
    effects = main_effects({name: [run[i] for run in runs] for i, name in enumerate(bring)}, dices)
    assert len(effects.found) == 3
    for effect in effects.found:
        others = sum(np.mean(list(each.values())) for name, each in bring.items() if name != effect.name)
        expected = {value: 0.4 + others + size for value, size in bring[effect.name].items()}
        assert means(effect) == pytest.approx(expected)
        assert effect.interval == pytest.approx((effect.size, effect.size), abs=1e-6)


def test_the_interval_of_two_values_is_students() -> None:
    dices = [0.5, 0.55, 0.6, 0.7, 0.62, 0.75, 0.8]
    (effect,) = main_effects({"a": ["x"] * 3 + ["y"] * 4}, dices).found
    expected = stats.ttest_ind(dices[3:], dices[:3]).confidence_interval(0.95)
    assert effect.interval == pytest.approx((expected.low, expected.high))


def test_settings_that_change_together_are_one() -> None:
    effects = main_effects({"decoder": DECODERS, "taps.low": ["a", "a", "", ""], "lr": RATES}, [0.5, 0.6, 0.7, 0.9])
    assert means(effects.found[0]) == pytest.approx({"fcn8s, a": 0.55, "deeplab, default": 0.8})
    assert effects.found[0].name == "decoder, taps.low"


def test_a_setting_of_one_decoder_alone_is_one_with_it() -> None:
    nested = {"decoder": [*DECODERS, "deeplab"], "channels": ["", "", "8", "8", "16"], "lr": [*RATES, "0.1"]}
    effects = main_effects(nested, [0.5, 0.6, 0.7, 0.8, 0.75])
    assert {effect.name: means(effect) for effect in effects.found} == {
        "decoder, channels": pytest.approx({"fcn8s, default": 0.55, "deeplab, 8": 0.75, "deeplab, 16": 0.8}),
        "lr": pytest.approx({"0.01": 0.75, "0.1": 0.65}),
    }


def test_what_runs_cannot_tell_apart_is_said() -> None:
    apart = main_effects({"a": ["1", "2", "3"], "b": ["x", "y", "z"]}, [0.1, 0.2, 0.3])
    assert (apart.found, apart.unclear) == ((), ("a, b",))  # each run has values of its own
    # The second value of a has runs with z and w only, which no other value of a has.
    runs = {"a": ["1", "1", "2", "2", "3"], "b": ["x", "y", "z", "w", "x"], "c": ["p", "q", "p", "q", "p"]}
    effects = main_effects(runs, [0.1, 0.2, 0.3, 0.5, 0.4])
    assert effects.found == ()
    assert set(effects.unclear) == {"a", "b, c"}


def test_numbers_that_hardly_repeat_become_ranges() -> None:
    rates = [10 ** (-5 + 0.25 * i) for i in range(12)]
    dices = [0.1, 0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]
    (effect,) = main_effects({"lr": [str(rate) for rate in rates]}, dices).found
    assert [level.mean for level in effect.levels] == pytest.approx([0.1, 0.5, 0.3])
    assert [level.ends for level in effect.levels] == [pytest.approx((rates[i], rates[i + 3])) for i in (0, 4, 8)]
    assert effect.levels[1].text == "0.0001 to 0.000562"
    assert (effect.best.runs, effect.worst.text) == (4, "1e-05 to 5.62e-05")


def test_few_runs_get_halves() -> None:
    generator = random.Random(1)
    values = {name: [str(generator.random()) for _ in range(6)] for name in ("a", "b", "c")}
    effects = main_effects(values, [generator.random() for _ in range(6)])
    assert {len(effect.levels) for effect in effects.found} == {2}


def test_the_text_of_numbers_decides_nothing() -> None:
    (effect,) = main_effects({"n": ["10", "9", "10", "9"]}, [0.1, 0.2, 0.3, 0.4]).found
    assert list(means(effect)) == ["9", "10"]
    assert effect.numeric
    (effect,) = main_effects({"n": ["10", "nan", "10", "null"]}, [0.1, 0.2, 0.3, 0.4]).found
    assert not effect.numeric


def test_nothing_varies() -> None:
    effects = main_effects({"a": ["x", "x"]}, [0.1, 0.2])
    assert (effects.found, effects.unclear) == ((), ())
