"""What happens to each tensor of a model in a phase: which parameters train, which buffers change."""

import torch
from torch.func import functional_call

from segtune.config.schema import RunSettings
from segtune.models.build import BuiltModel
from segtune.models.receptive_field import PROBE_SIZE
from segtune.runtime.device import Device
from segtune.training.phase_summary import Facts, cost_of
from segtune.training.phases import Phase, entered


def trained(built: BuiltModel, phase: Phase) -> set[str]:
    """Return the names of the parameters that train in a phase."""
    with entered(built, phase):
        return {name for name, parameter in built.model.named_parameters() if parameter.requires_grad}


def changing_buffers(built: BuiltModel, phase: Phase, batch_size: int) -> set[str]:
    """Return the names of the buffers that a forward pass of training changes: found on copies, by images of noise.

    Args:
        built: The model.
        phase: The phase.
        batch_size: Images of a batch: with one, a batch normalisation of single pixels does not change.
    """
    before = dict(built.model.named_buffers())
    after = {name: buffer.clone() for name, buffer in before.items()}
    device = built.model.mean.device
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (min(2, batch_size), 3, *PROBE_SIZE), generator=generator).to(device)
    with entered(built, phase), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        functional_call(built.model, after, (images,))
    return {name for name, buffer in before.items() if not torch.equal(buffer, after[name])}


def tensor_facts(built: BuiltModel, phase: Phase, settings: RunSettings, compute: Device) -> list[Facts]:
    """Return for each parameter and buffer its name, shape and `state` in a phase, and parameters' `optimizer_bytes`.

    The state is `trains` or `frozen` for a parameter, `changes` or `frozen` for a buffer, such as a batch
    normalisation's statistics or the scale of a feature.
    """
    owned = cost_of(built, phase, settings, compute).optimizer_tensors
    training, changing = trained(built, phase), changing_buffers(built, phase, settings.train.images_per_batch)
    parameters = [
        {
            "name": name,
            "kind": "parameter",
            "shape": list(parameter.shape),
            "state": "trains" if name in training else "frozen",
            "optimizer_bytes": owned.get(name, 0),
        }
        for name, parameter in built.model.named_parameters()
    ]
    buffers = [
        {
            "name": name,
            "kind": "buffer",
            "shape": list(buffer.shape),
            "state": "changes" if name in changing else "frozen",
        }
        for name, buffer in built.model.named_buffers()
    ]
    return parameters + buffers
