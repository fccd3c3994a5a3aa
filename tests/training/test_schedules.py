"""Schedules of a phase, step by step: against PyTorch's, TensorFlow's formulas, and by hand; also after a resume."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
    SequentialLR,
    StepLR,
)

from segtune.config.training_settings import OptimizerSettings, PhaseSettings
from segtune.errors import UserError
from segtune.training.schedules import build_schedule, check_schedule, factor_of
from segtune.training.state import OptimState

OF_EPOCH, LR = 5, 0.02


def optimizer() -> Optimizer:
    """Two groups, as those of backbone and decoder."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (LR, LR / 10)]
    return torch.optim.SGD(groups)


def walk(steps: int, made: Optimizer, schedule: LRScheduler) -> list[list[float]]:
    """The learning rates of the next steps."""
    lrs = []
    for _ in range(steps):
        lrs.append([group["lr"] for group in made.param_groups])
        made.step()
        schedule.step()
    return lrs


def state_of(steps: int, **settings: Any) -> OptimState:
    made = optimizer()
    schedule = build_schedule(
        OptimizerSettings("sgd", **settings), made, PhaseSettings(steps=steps, lr=LR), steps, OF_EPOCH
    )
    return OptimState(made, schedule, torch.amp.GradScaler("cpu", enabled=False))


def torchs(steps: int, warm: int, decay: Callable[[Optimizer, int], LRScheduler]) -> list[list[float]]:
    """PyTorch's linear warm-up, then its `decay` over the rest of the phase."""
    made = optimizer()
    if not warm:
        return walk(steps, made, decay(made, steps))
    warm_up = LinearLR(made, start_factor=1 / (warm + 1), total_iters=warm)
    return walk(steps, made, SequentialLR(made, [warm_up, decay(made, steps - warm)], [warm]))


Decay = Callable[[Optimizer, int], LRScheduler]
CASES: list[tuple[dict[str, Any], Decay]] = [
    ({"schedule": "constant"}, lambda o, _: ConstantLR(o, factor=1)),
    ({"schedule": "cosine"}, lambda o, rest: CosineAnnealingLR(o, rest)),
    ({"schedule": "poly"}, lambda o, rest: PolynomialLR(o, rest, 0.9)),
    ({"schedule": "poly", "power": 2, "decay_steps": 17}, lambda o, _: PolynomialLR(o, 17, 2)),
    ({"schedule": "poly", "power": 1, "decay_epochs": 3}, lambda o, _: PolynomialLR(o, 15, 1)),
    ({"schedule": "poly", "power": 1, "end_factor": 0.2}, lambda o, rest: LinearLR(o, 1, 0.2, rest)),
    ({"schedule": "exponential"}, lambda o, _: StepLR(o, 2 * OF_EPOCH, 0.94)),
    ({"schedule": "exponential", "decay_epochs": 1.4, "gamma": 0.5}, lambda o, _: StepLR(o, 7, 0.5)),
    ({"schedule": "exponential", "decay_steps": 3, "gamma": 0.7}, lambda o, _: StepLR(o, 3, 0.7)),
    ({"schedule": "exponential", "decay_steps": 1, "gamma": 0.98}, lambda o, _: ExponentialLR(o, 0.98)),
    (
        {"schedule": "exponential", "decay_epochs": 2, "gamma": 0.5, "staircase": False},
        lambda o, _: ExponentialLR(o, 0.5**0.1),
    ),
]


@pytest.mark.parametrize("warmup", [0, 4, 0.2])
@pytest.mark.parametrize(("settings", "decay"), CASES)
def test_schedules_are_those_of_pytorch_also_after_a_resume_and_when_a_phase_becomes_longer(
    settings: dict[str, Any], decay: Decay, warmup: float
) -> None:
    def expected(steps: int) -> list[Any]:
        warm = warmup if warmup >= 1 else round(warmup * steps)
        return [pytest.approx(lrs, abs=1e-7 * LR) for lrs in torchs(steps, int(warm), decay)]

    state = state_of(40, **settings, warmup=warmup)
    assert walk(13, state.optimizer, state.schedule) == expected(40)[:13]
    saved = state.state_dict()
    assert walk(27, state.optimizer, state.schedule) == expected(40)[13:]
    for steps in (40, 60):
        resumed = state_of(steps, **settings, warmup=warmup)
        resumed.load_state_dict(saved)
        assert walk(steps - 13, resumed.optimizer, resumed.schedule) == expected(steps)[13:]
    if warmup != 0.2 and (settings["schedule"] in ("constant", "exponential") or "decay_steps" in settings):
        assert expected(60)[:40] == torchs(40, int(warmup), decay)  # these do not depend on the length


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize(
    "given", [{"milestones": [1.2, 2, 7]}, {"milestone_steps": [6, 10, 35]}], ids=["epochs", "steps"]
)
def test_milestones_count_from_the_beginning_of_the_phase(given: dict[str, Any], warmup: int) -> None:
    for gamma in ({}, {"gamma": 0.3}):
        state = state_of(40, schedule="multistep", warmup=warmup, **given, **gamma)
        places = [place - warmup for place in (6, 10, 35)]
        expected = torchs(40, warmup, lambda o, _: MultiStepLR(o, places, gamma.get("gamma", 0.1)))  # noqa: B023
        assert walk(40, state.optimizer, state.schedule) == [pytest.approx(lrs, abs=1e-9) for lrs in expected]


def tf_polynomial_decay(rate: float, step: int, decay_steps: int, end: float, power: float, *, cycle: bool) -> float:
    """As tf.train.polynomial_decay is documented."""
    if cycle:
        decay_steps *= math.ceil(step / decay_steps) or 1
    else:
        step = min(step, decay_steps)
    return (rate - end) * (1 - step / decay_steps) ** power + end


@pytest.mark.parametrize("cycle", [False, True])
def test_poly_is_tensorflows_with_an_end_rate_as_a_fraction(cycle: bool) -> None:
    """TF-slim's end_learning_rate is a rate: as a fraction it is divided by the learning rate."""
    factor = factor_of(
        OptimizerSettings("sgd", schedule="poly", power=2, end_factor=1e-4 / LR, cycle=cycle, decay_steps=12, warmup=0),
        50,
        OF_EPOCH,
    )
    expected = [tf_polynomial_decay(LR, step, 12, 1e-4, 2, cycle=cycle) for step in range(50)]
    assert [LR * factor(step) for step in range(50)] == pytest.approx(expected, abs=1e-12)


def test_cosine_ends_at_a_fraction() -> None:
    settings = OptimizerSettings("sgd", schedule="cosine", end_factor=0.1, decay_epochs=2, warmup=2)
    factor = factor_of(settings, 20, OF_EPOCH)
    made = optimizer()
    made.param_groups.pop()
    expected = [lr for (lr,) in walk(11, made, CosineAnnealingLR(made, 10, 0.1 * LR))]
    assert [LR * factor(step) for step in range(2, 13)] == pytest.approx(expected, abs=1e-7 * LR)
    assert [factor(step) for step in (0, 1, 13, 19)] == [1 / 3, 2 / 3, 0.1, 0.1]


def test_the_defaults_are_to_the_bit_those_of_earlier_runs() -> None:
    """The formulas of the first version; cosine is in float32."""
    for steps in (1, 7, 100):
        warm = int(0.05 * steps)
        for step in range(steps + 1):
            done = min(1.0, (step - warm) / max(1, steps - warm))
            cosine = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())
            for name, decayed in (("cosine", cosine), ("poly", (1 - done) ** 0.9 if step >= warm else 0)):
                factor = factor_of(OptimizerSettings("adamw", schedule=name), steps, 3)
                assert factor(step) == ((step + 1) / (warm + 1) if step < warm else decayed)


def test_a_phase_has_its_own_schedule() -> None:
    group = OptimizerSettings("adamw", schedule="exponential", decay_steps=2, gamma=0.5, warmup=0)

    def factors(**own: Any) -> list[float]:
        made = optimizer()
        schedule = build_schedule(group, made, PhaseSettings(epochs=1, lr=LR, **own), 4, OF_EPOCH)
        return [lr / LR for lr, _ in walk(4, made, schedule)]

    assert factors() == pytest.approx([1, 1, 0.5, 0.5])
    assert factors(gamma=0.1) == pytest.approx([1, 1, 0.1, 0.1])
    assert factors(decay_epochs=0.2) == pytest.approx([1, 0.5, 0.25, 0.125])
    assert factors(schedule="poly", power=1.0) == pytest.approx([1, 0.75, 0.5, 0.25])  # the length is not the group's
    assert factors(schedule="multistep", milestone_steps=[3]) == pytest.approx([1, 1, 1, 0.1])  # nor is the factor
    assert factors(schedule="constant", warmup=3) == pytest.approx([0.25, 0.5, 0.75, 1])
    assert factors(schedule="constant", warmup=0.5) == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_a_warm_up_is_no_longer_than_its_phase() -> None:
    check_schedule("all", OptimizerSettings("sgd", warmup=20), 20, 5)
    with pytest.raises(UserError) as error:
        check_schedule("all", OptimizerSettings("sgd", warmup=21), 20, 5)
    assert str(error.value) == (
        "freeze.phases.all: got a warmup of 21 steps; expected at most the phase's 20. Shorten it (optimizer.warmup=…, "
        "or the phase's warmup; below 1 it is a fraction), or lengthen the phase."
    )


def test_milestones_behind_the_end_of_the_phase_are_said(caplog: pytest.LogCaptureFixture) -> None:
    check_schedule("all", OptimizerSettings("sgd", schedule="multistep", milestones=[2, 3.8]), 20, 5)
    check_schedule("all", OptimizerSettings("sgd", milestones=[9]), 20, 5)
    assert not caplog.messages
    check_schedule("all", OptimizerSettings("sgd", schedule="multistep", milestones=[2, 4, 9]), 20, 5)
    assert caplog.messages == ["Phase all ends after 20 steps: its learning rate does not fall at step 20, 45."]


@pytest.mark.parametrize(
    ("settings", "silent"),
    [
        ({"warmup": 3, "decay_steps": 16}, False),
        ({"warmup": 3, "decay_steps": 17}, True),  # 0 only after the last step
        ({"schedule": "poly", "warmup": 0, "decay_epochs": 3}, False),
        ({"schedule": "poly", "warmup": 0, "decay_epochs": 3, "end_factor": 0.1}, True),
        ({"schedule": "poly", "warmup": 0, "decay_epochs": 3, "cycle": True}, True),
        ({"schedule": "exponential", "warmup": 0, "decay_epochs": 3}, True),
    ],
)
def test_a_learning_rate_that_stays_at_0_is_said(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], silent: bool
) -> None:
    chosen = OptimizerSettings("sgd", **settings)
    factor = factor_of(chosen, 20, 5)
    zeros = [step for step in range(20) if factor(step) == 0]
    check_schedule("all", chosen, 20, 5)
    assert bool(caplog.messages) is (19 in zeros and len(zeros) == 20 - zeros[0]) is not silent
    assert all(f"is 0 after {zeros[0]} of its 20 steps" in message for message in caplog.messages)


@pytest.mark.slow
def test_schedules_are_those_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's PiecewiseConstantDecay falls one step after its boundary."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    from keras.optimizers import schedules

    for theirs, ours in (
        (schedules.ExponentialDecay(LR, 6, 0.8), {"schedule": "exponential", "gamma": 0.8, "staircase": False}),
        (schedules.ExponentialDecay(LR, 6, 0.8, staircase=True), {"schedule": "exponential", "gamma": 0.8}),
        (schedules.PolynomialDecay(LR, 6, 0.1 * LR, 2), {"schedule": "poly", "power": 2, "end_factor": 0.1}),
        (
            schedules.PolynomialDecay(LR, 6, 0.1 * LR, 2, cycle=True),
            {"schedule": "poly", "power": 2, "end_factor": 0.1, "cycle": True},
        ),
        (schedules.CosineDecay(LR, 6, alpha=0.1), {"schedule": "cosine", "end_factor": 0.1}),
        (
            schedules.PiecewiseConstantDecay([3, 9], [LR, LR / 10, LR / 100]),
            {"schedule": "multistep", "milestone_steps": [4, 10]},
        ),
    ):
        more = {} if ours["schedule"] == "multistep" else {"decay_steps": 6}
        factor = factor_of(OptimizerSettings("sgd", warmup=0, **more, **ours), 20, OF_EPOCH)
        expected = [float(theirs(step)) for step in range(20)]
        assert [LR * factor(step) for step in range(20)] == pytest.approx(expected, abs=1e-6 * LR)
