"""The state of a run: seeds, the count of epochs since the best, and an optimizer that goes on exactly."""

import copy
from functools import partial
from math import nan
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from segtune.config.training_settings import FreezeSettings, PhaseSettings
from segtune.errors import UserError
from segtune.runtime import distributed
from segtune.training.optim import FUSED, OPTIMIZERS
from segtune.training.state import OptimState, State, check_place, seed_of, since_best


@pytest.mark.parametrize(
    ("dices", "epoch", "expected"),
    [
        ([], 0, 0),
        ([0.5], 1, 0),
        ([0.5, 0.7, 0.6, 0.6], 4, 2),
        ([0.7, 0.7], 2, 1),  # as good is not better
        ([0.9, 0.1, 0.2], 2, 0),  # the best epoch is of the phase before
        ([0.5, nan, 0.4], 3, 2),
        ([nan, nan], 2, 0),
    ],
)
def test_epochs_since_the_best_of_the_phase(dices: list[float], epoch: int, expected: int) -> None:
    assert since_best(State(epoch=epoch, rows=[{"val_dice": dice} for dice in dices])) == expected


def test_every_step_has_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [seed_of(seed, epoch, step) for seed in range(3) for epoch in range(3) for step in range(3)]
    assert len(set(seeds)) == 27
    assert seed_of(1, 2, 3) == int(np.random.SeedSequence([1, 2, 3]).generate_state(1)[0])
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert seed_of(1, 2, 3) not in seeds


def optim_state(steps: int, name: str = "adamw", **options: float) -> tuple[torch.nn.Linear, OptimState]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 1)
    optimizer = OPTIMIZERS[name](layer.parameters(), lr=0.1, **options)
    schedule = LambdaLR(optimizer, lambda step: 1 - step / steps)
    return layer, OptimState(optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False))


def step(layer: torch.nn.Linear, state: OptimState) -> None:
    layer(torch.ones(2, 3)).sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.schedule.step()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}], ids=["", "momentum"])
def test_a_loaded_optimizer_goes_on_to_the_bit(name: str, options: dict[str, float]) -> None:
    if options and name.startswith("adam"):
        return
    layer, state = optim_state(8, name, **options)
    for _ in range(3):
        step(layer, state)
    saved, values = copy.deepcopy(state.state_dict()), {name: p.clone() for name, p in layer.state_dict().items()}
    assert set(saved) == {"optimizer", "schedule", "scaler"}
    for _ in range(2):
        step(layer, state)
    again, resumed = optim_state(8, name, **options)
    again.load_state_dict(values)
    resumed.load_state_dict(saved)
    for _ in range(2):
        step(again, resumed)
    assert torch.equal(again.weight, layer.weight)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_optimizer_goes_on_from_the_states_of_another(name: str) -> None:
    """They may be laid out in another order than the weights, and their optimizer was not fused."""
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        convolution = torch.nn.Conv2d(3, 5, 3).requires_grad_(False).to(memory_format=torch.channels_last)
        options = {"momentum": 0.5} if name == "sgd" else {}
        made = []
        for fuse in (False, fused):
            optimizer = OPTIMIZERS[name](convolution.parameters(), lr=0.1, fused=fuse, **options)
            schedule = LambdaLR(optimizer, lambda step: 1.0)
            made.append(OptimState(optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False)))
        first, second = made
        for each in (first, first, second, second):
            if each is second and not second.optimizer.state:
                saved = copy.deepcopy(first.state_dict())
                for moments in saved["optimizer"]["state"].values():
                    moments |= {name: value.contiguous() for name, value in moments.items()}
                second.load_state_dict(saved)
            for parameter in convolution.parameters():
                parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
            each.optimizer.step()
        assert {group["fused"] for group in second.optimizer.param_groups} == {fused}
        ends.append(convolution.weight.clone())
    torch.testing.assert_close(ends[0], ends[1])


def test_steps_counted_without_a_tensor_are_taken() -> None:
    """The RMSpropTF of timm 1.0.15 counts them in an int."""
    layer, state = optim_state(8, "rmsprop_tf")
    step(layer, state)
    saved = copy.deepcopy(state.state_dict())
    for moments in saved["optimizer"]["state"].values():
        moments["step"] = int(moments["step"])
    optim_state(8, "rmsprop_tf")[1].load_state_dict(saved)


def test_a_longer_schedule_sets_the_learning_rate() -> None:
    layer, state = optim_state(4)
    for _ in range(2):
        step(layer, state)
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    longer = optim_state(8)[1]
    longer.load_state_dict(state.state_dict())
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(0.075)


def test_a_run_may_become_longer_but_not_shorter_than_it_is() -> None:
    def settings(**phase: int) -> SimpleNamespace:
        freeze = FreezeSettings({"all": PhaseSettings(lr=0.1, **phase)})
        return SimpleNamespace(freeze=freeze, train=SimpleNamespace(accumulate=2, images_per_batch=4))

    state = State(epoch=2)
    check_place(state, settings(epochs=3), settings(epochs=2), 5, 6)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has already made 6 steps of this phase; got a length of 3"):
        check_place(state, settings(epochs=1), settings(epochs=2), 5, 6)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="ended after 5 steps, within an epoch"):
        check_place(state, settings(steps=6), settings(steps=5), 5, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("length", "made", "refused"),
    [
        ({"epochs": 3}, 4, ""),
        ({"epochs": 2}, 4, ""),
        ({"epochs": 1}, 3, "has already made 6 steps of this phase; got a length of 3"),  # by the batches it took
        ({"steps": 4}, 4, ""),
        ({"steps": 9}, 4, ""),  # its two epochs were whole: four steps were made and two skipped
        ({"steps": 9}, 3, "ended after 3 steps, within an epoch"),
        ({"steps": 3}, 4, "has already made 4 steps of this phase; got a length of 3"),
    ],
)
def test_skipped_steps_shorten_no_phase(length: dict[str, int], made: int, refused: str) -> None:
    """Three steps an epoch; two of six were skipped, or three where the run is judged by its epochs."""
    settings = SimpleNamespace(
        freeze=FreezeSettings({"all": PhaseSettings(lr=0.1, **length)}),
        train=SimpleNamespace(accumulate=2, images_per_batch=4),
    )
    skipped = 6 - made if length.get("epochs") else 2
    rows = [{"phase": "head", "skipped_steps": 7}, {"phase": "all"}, {"phase": "all", "skipped_steps": skipped}]
    check = partial(check_place, State(epoch=2, rows=rows), settings, settings, 5, made)  # type: ignore[arg-type]
    if not refused:
        check()
        return
    with pytest.raises(UserError, match=refused):
        check()


def test_skipped_steps_are_counted_by_phase() -> None:
    """Rows of earlier versions have no count; the running epoch belongs to the phase that has begun last."""
    rows = [{"phase": "a"}, {"phase": "a", "skipped_steps": None}, {"phase": "b", "skipped_steps": 2}]
    state = State(skipped=1, phases={"a": {}, "b": {}}, rows=rows)
    assert [state.skipped_in(name) for name in ("a", "b", "c")] == [0, 3, 0]


def test_a_place_that_contradicts_itself_is_refused() -> None:
    phase = FreezeSettings({"all": PhaseSettings(lr=0.1, epochs=3)})
    same = SimpleNamespace(freeze=phase, train=SimpleNamespace(accumulate=1, images_per_batch=4))
    check_place(State(epoch=1, step=2, images=7), same, same, 5, 7)  # type: ignore[arg-type]
    for wrong, steps in (
        (State(epoch=1, step=2, images=9), 7),
        (State(epoch=1, step=6, images=9), 7),
        (State(epoch=1), 6),
    ):
        with pytest.raises(UserError, match=f"has made {steps} steps and 1 epochs of the phase, and {wrong.step} batc"):
            check_place(wrong, same, same, 5, steps)  # type: ignore[arg-type]


def test_states_of_another_optimizer_are_refused() -> None:
    layer, state = optim_state(4)
    step(layer, state)
    begin = "The optimizer's states in the checkpoint do not fit the phase that the run is in: "
    good = copy.deepcopy(state.state_dict())
    for path, value, message in (
        (("optimizer", "param_groups"), [{"params": [0]}], "1 parameters in 1 groups; expected 2 in 1."),
        (
            ("optimizer", "state", 0, "exp_avg"),
            torch.ones(2),
            "exp_avg of parameter 0 has shape (2,); expected (1, 3).",
        ),
        (("optimizer", "state", 0, "exp_avg"), None, "exp_avg of parameter 0 has NoneType; expected (1, 3)."),
        (("optimizer", "state", 0), {"momentum_buffer": None}, "parameter 0 of 2 has momentum_buffer."),
        (("optimizer", "state", 7), {}, "parameter 7 of 2 has none."),
        (
            ("scaler",),
            {"scale": "x"},
            "the gradient scaler has scale; expected numbers scale, growth_factor, backoff_factor, growth_interval, "
            "_growth_tracker.",
        ),
    ):
        changed = copy.deepcopy(good)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(UserError) as error:
            optim_state(4)[1].load_state_dict(changed)
        assert str(error.value) == begin + message
    optim_state(4)[1].load_state_dict(good)
