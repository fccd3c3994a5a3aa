"""Which tensors change in a phase, against a step of training."""

from collections.abc import Callable

import pytest
import torch

from segtune.config.training_settings import PhaseSettings
from segtune.models.build import BuiltModel
from segtune.training.freezing import Scope
from segtune.training.phases import Phase, enter
from segtune.training.tensor_facts import changing_buffers, trained
from tests.conftest import slow

PHASES = {
    "head": Scope(("decoder",)),
    "without": Scope(("backbone.layer2", "decoder"), ("backbone.layer2.0.bn1", "decoder.aspp.project")),
}


@pytest.mark.parametrize(("name", "batch"), [("head", 1), ("without", 2), slow("head", 2), slow("without", 1)])
def test_what_changes_is_what_a_step_changes(name: str, batch: int, built_of: Callable[[str], BuiltModel]) -> None:
    built = built_of("resnet50_deeplabv3plus")
    phase = Phase(name, PhaseSettings(lr=0.1, epochs=1), PHASES[name])
    before = {key: tensor.clone() for key, tensor in built.model.state_dict().items()}
    state = torch.get_rng_state()
    changing = changing_buffers(built, phase, batch)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[key]) for key, tensor in built.model.state_dict().items())
    training = trained(built, phase)
    enter(built, phase)
    optimizer = torch.optim.SGD([p for p in built.model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(0)
    (built.model(torch.randint(256, (batch, 3, 64, 64))) - 1).square().mean().backward()
    optimizer.step()
    buffers = {key for key, _ in built.model.named_buffers()}
    after = built.model.state_dict()
    changed = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert changed & buffers == changing
    assert changed - buffers <= training
    assert ("decoder.aspp.convs.4.2.running_mean" in changing) == (batch == 2)
    assert not any(key.startswith(("scale", "mean", "std", "backbone.layer2.0.bn1.")) for key in changing)
