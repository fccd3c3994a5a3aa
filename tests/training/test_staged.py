"""FCN as published: its three stages against networks of one, two and three depths written here from the paper.

The upsampling is the bilinear kernel of the published code (Caffe's bilinear filler), its weights by the formula there.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from segtune.cli.help import config_folder
from segtune.config.parse import parse
from segtune.config.training_settings import FreezeSettings, OptimizerSettings, PhaseSettings
from segtune.errors import UserError
from segtune.models.build import BuiltModel
from segtune.models.module_paths import owners
from segtune.models.pretrained import LoadedWeights
from segtune.runtime.device import Device
from segtune.training import phase_summary
from segtune.training.freezing import train_mode
from segtune.training.optim import build_optimizer
from segtune.training.phase_summary import facts
from segtune.training.phases import Phase, enter, plan_phases
from segtune.training.step_cost import StepCost

BuiltOf = Callable[[str], BuiltModel]
STAGED = yaml.safe_load((config_folder() / "freeze" / "staged.yaml").read_text(encoding="utf-8"))
IMAGES = torch.randint(256, (1, 3, 32, 64), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
MASKS = (IMAGES[:, :1] > 127).float()


class PublishedFCN(nn.Module):
    """FCN-32s, FCN-16s or FCN-8s: `depths` 1, 2 or 3. The scores of pool4 and pool3 begin as zero."""

    def __init__(self, vgg16: nn.Module, score: nn.Module, scales: Mapping[str, Tensor], depths: int) -> None:
        super().__init__()
        self.vgg16, self.score, self.scales = vgg16, score, dict(scales)
        self.skips = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in (512, 256)[: depths - 1])
        for parameter in self.skips.parameters():
            nn.init.zeros_(parameter)
        place = np.arange(4)
        ramp = 1 - np.abs(place / 2 - 0.75)  # factor 2, centre 1.5
        self.kernel = torch.tensor(np.outer(ramp, ramp), dtype=torch.float32)[None, None]
        # The published upsampling is fixed where no skip has joined, and may be learned where one has.
        self.learned = nn.ParameterList(nn.Parameter(self.kernel.clone()) for _ in self.skips)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = ((images / 255 - mean[:, None, None]) / std[:, None, None]).to(memory_format=torch.channels_last)
        layers: list[nn.Module] = list(self.vgg16.get_submodule("features").children())
        pool3 = nn.Sequential(*layers[:17])(x)
        pool4 = nn.Sequential(*layers[17:24])(pool3)
        x = nn.Sequential(*layers[24:])(pool4)
        x = F.dropout(F.relu(self.vgg16.get_submodule("fc6")(x)), 0.5, self.training)
        x = F.dropout(F.relu(self.vgg16.get_submodule("fc7")(x)), 0.5, self.training)
        scores = self.score(x * self.scales["high"])
        for depth, feature in enumerate((pool4 * self.scales["pool4"], pool3 * self.scales["pool3"])):
            joined = depth < len(self.skips)
            kernel = self.learned[depth] if joined else self.kernel
            scores = F.conv_transpose2d(scores, kernel, stride=2, padding=1)
            scores = scores + self.skips[depth](feature) if joined else scores
        return F.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)


def published(model: nn.Module, vgg16: nn.Module, depths: int) -> PublishedFCN:
    """Return the published network with the values that a model has now."""
    state = model.state_dict()
    vgg16.load_state_dict({name.removeprefix("backbone."): v for name, v in state.items() if name[:9] == "backbone."})
    score = nn.Conv2d(4096, 1, 1)
    score.load_state_dict({name: state[f"decoder.score_high.{name}"] for name in ("weight", "bias")})
    network = PublishedFCN(vgg16, score, {name: state[f"scale.{name}"] for name in ("high", "pool4", "pool3")}, depths)
    for skip, upsampling, own in zip(network.skips, network.learned, ("high", "pool4"), strict=False):
        upsampling.data.copy_(state[f"decoder.upsample_{own}.0.weight"])
        name = "pool4" if own == "high" else "pool3"
        skip.load_state_dict({part: state[f"decoder.score_{name}.{part}"] for part in ("weight", "bias")})
    return network


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(3)  # for dropout
    F.binary_cross_entropy_with_logits(model(IMAGES), MASKS).backward()
    optimizer.step()
    model.zero_grad(set_to_none=True)


def answer(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(IMAGES)
    return logits


def plan(built: BuiltModel, source: str | None = "a file", phases: dict[str, Any] = STAGED["phases"]) -> list[Phase]:
    settings = SimpleNamespace(freeze=parse(FreezeSettings, {"phases": phases}))
    return plan_phases(settings, replace(built, weights=LoadedWeights(source)))  # type: ignore[arg-type]


def test_each_stage_is_the_published_network_and_begins_where_the_last_ended(
    built_of: BuiltOf, network_of: Callable[[str], nn.Module]
) -> None:
    built = built_of("vgg16_fcn8s")
    model = built.model.to(memory_format=torch.channels_last)
    reached = answer(model)
    for phase, depths in zip(plan(built), (1, 2, 3), strict=True):
        own = published(model, network_of("vgg16"), depths)
        enter(built, phase)
        torch.testing.assert_close(answer(model), reached, rtol=0, atol=0)  # the phases hand over without a jump
        torch.testing.assert_close(answer(own), reached, rtol=1e-4, atol=1e-5)
        train_mode(model, phase.scope)
        for trained in (own.train(), model):
            parameters = [p for p in trained.parameters() if p.requires_grad]
            step(trained, torch.optim.SGD(parameters, lr=0.01))
        before, reached = reached, answer(model)
        assert (reached - before).abs().max() > 0.01
        torch.testing.assert_close(answer(own), reached, rtol=1e-3, atol=1e-4)
        for name, joined in {"pool4": depths > 1, "pool3": depths > 2}.items():
            assert model.get_parameter(f"decoder.score_{name}.weight").any() == joined
        for name, learned in zip(("high", "pool4"), [*own.learned, own.kernel, own.kernel], strict=False):
            mine = model.get_parameter(f"decoder.upsample_{name}.0.weight")
            assert torch.equal(mine, own.kernel) == (learned is own.kernel)
            torch.testing.assert_close(mine - own.kernel, learned - own.kernel, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("source", ["a file", None], ids=["pretrained", "random"])
def test_only_what_starts_at_fixed_values_may_be_frozen_before_it_has_trained(
    source: str | None, built_of: BuiltOf
) -> None:
    built = built_of("vgg16_fcn8s")
    frozen = [[path for path in owners(built.model) if not phase.scope.holds(path)] for phase in plan(built, source)]
    last = ["decoder.score_pool3", "decoder.upsample_pool4.0"]
    assert [set(paths) for paths in frozen] == [
        {"decoder.score_pool4", "decoder.upsample_high.0", *last},
        {*last},
        set(),
    ]
    with pytest.raises(UserError) as caught:
        plan(built, source, {"skips": {"epochs": 1, "lr": 1, "decoder": ["score_pool4", "score_pool3"]}})
    assert str(caught.value) == (
        "freeze.phases.skips freezes decoder.score_high, whose random weights no earlier phase has trained. "
        "Train them first, or load weights for them (restore.checkpoint=FILE)."
    )


def test_the_headings_name_what_trains_of_the_decoder(built_of: BuiltOf, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = StepCost(flops=0, activations=0, gradients=0, optimizer_tensors={}, weights=0, backward_stops="conv1")
    monkeypatch.setattr(phase_summary, "cost_of", lambda *_: cost)
    built, settings = built_of("vgg16_fcn8s"), SimpleNamespace(optimizer=OptimizerSettings("adamw"))
    found = [facts(built, phase, settings, Device(torch.device("cpu"), torch.float32)) for phase in plan(built)]  # type: ignore[arg-type]
    assert [each["frozen"] for each in found] == [
        "decoder.score_pool4, decoder.score_pool3, decoder.upsample_high, decoder.upsample_pool4",
        "decoder.score_pool3, decoder.upsample_pool4",
        "",
    ]
    assert [each["trains"].removeprefix("block1 … fc, ") for each in found] == [
        "decoder.score_high",
        "decoder.score_high, decoder.score_pool4, decoder.upsample_high",
        "decoder",
    ]


def test_the_rates_of_the_recipe_make_the_steps_of_the_published_solver() -> None:
    """Caffe: v = 0.99 v + 1e-10 (g + 5e-4 w), w -= v, with the gradient g of the loss summed over 750 x 750 pixels."""
    recipe = yaml.safe_load((config_folder() / "experiment" / "fcn_paper.yaml").read_text(encoding="utf-8"))
    base = yaml.safe_load((config_folder() / "optimizer" / "sgd.yaml").read_text(encoding="utf-8"))
    phase = parse(PhaseSettings, {"epochs": 1, **recipe["freeze"]["phases"]["all"]})
    model = nn.ModuleDict({"backbone": nn.Linear(4, 4, bias=False), "decoder": nn.Linear(4, 1, bias=False)}).double()
    published = copy.deepcopy(model)
    begun = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(parse(OptimizerSettings, base | recipe["optimizer"]), model, phase, {})
    pixels = recipe["data"]["image_size"] ** 2
    velocities = [torch.zeros_like(p) for p in published.parameters()]
    for number in range(50):
        x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
        for each, weight in ((model, 1), (published, pixels)):
            loss = (each["decoder"](each["backbone"](x)) - x.sum(1, keepdim=True)).square().mean()
            each.zero_grad()
            (weight * loss).backward()
        optimizer.step()
        with torch.no_grad():
            for p, v in zip(published.parameters(), velocities, strict=True):
                v.mul_(0.99).add_(1e-10 * (p.grad + 5e-4 * p))
                p -= v
    for mine, theirs, start in zip(model.parameters(), published.parameters(), begun, strict=True):
        assert (theirs - start).norm() > 0.01
        torch.testing.assert_close(mine - start, theirs - start, rtol=0.02, atol=1e-5)  # the rate is rounded
