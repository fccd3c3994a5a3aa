"""What a step costs: estimates against values worked out by hand and real steps."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.layers import SyncBatchNormAct
from timm.optim.rmsprop_tf import RMSpropTF
from torch import Tensor, nn

from segtune.losses import dice_bce_loss
from segtune.models.build import BuiltModel
from segtune.training.step_cost import StepCost, estimate

SHAPE = (2, 8, 8)
PIXELS = 2 * 8 * 8


class Tiny(nn.Module):
    """Two convolutions, for oracles by hand: `first` (3 to 4 channels, 3 x 3) and `last`, to one logit a pixel."""

    def __init__(self, last: nn.Module | None = None, *, cut: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.act = nn.ReLU()
        self.last = last or nn.Conv2d(4, 1, 1)
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.first(images.float()))
        logits: Tensor = self.last(x.detach() if self.cut else x)
        return logits


def sgd(model: nn.Module, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=momentum)


def frozen(model: Tiny) -> Tiny:
    model.first.requires_grad_(False)
    return model


def cost(model: nn.Module, dtype: torch.dtype = torch.float32) -> StepCost:
    return estimate(model, sgd, SHAPE, dtype)


FIRST = 2 * PIXELS * 4 * 3 * 9  # operations of the first convolution: two a weight and pixel


@pytest.mark.parametrize(
    ("last", "operations"),
    [
        (nn.Conv2d(4, 1, 1), 2 * PIXELS * 4),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 2 * PIXELS * 4 * 9),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), 2 * PIXELS * 6 * 2 * 9),
        (nn.Conv2d(4, 2, 2, stride=2), 2 * PIXELS / 4 * 2 * 4 * 4),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), 2 * PIXELS * 4 * 2 * 4),
    ],
    ids=["pointwise", "depthwise", "grouped", "strided", "transposed"],
)
def test_operations_are_those_of_the_forward_pass_and_of_each_gradient(last: nn.Module, operations: int) -> None:
    # The images need no gradient; the first layer's output needs one only if the first layer trains.
    assert cost(Tiny(last)).flops == (1 + 1) * FIRST + (1 + 1 + 1) * operations
    assert cost(frozen(Tiny(last))).flops == FIRST + (1 + 1) * operations


def test_batchnorm_of_several_processes_costs_the_same() -> None:
    model = nn.Sequential(Tiny(nn.Sequential(nn.Conv2d(4, 1, 1), nn.BatchNorm2d(1))))
    alone = cost(model)
    together = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert cost(together) == alone
    assert any(isinstance(module, nn.SyncBatchNorm) for module in together.modules())


def test_a_layer_of_several_processes_keeps_its_kind() -> None:
    model = nn.Sequential(Tiny(nn.Sequential(nn.Conv2d(4, 1, 1), SyncBatchNormAct(1))))
    cost(model)
    assert sum(type(module) is SyncBatchNormAct for module in model.modules()) == 1


def test_activations_are_what_the_backward_pass_needs_each_counted_once() -> None:
    images, features = 3 * PIXELS * 4, 4 * PIXELS * 4
    # The activation keeps its output and the last convolution its input, which are the same tensor.
    assert cost(Tiny()).activations == images + features
    assert cost(frozen(Tiny())).activations == features


def test_autocast_halves_activations_and_keeps_copies_of_weights() -> None:
    images, features = 3 * PIXELS * 2, 4 * PIXELS * 2
    first, last = 3 * 4 * 9 * 2, 4 * 2
    assert cost(Tiny(), torch.bfloat16).activations == images + features + first + last
    assert cost(frozen(Tiny()), torch.bfloat16).activations == features + last


def test_the_loss_counts_if_it_is_given() -> None:
    def square(logits: Tensor, target: Tensor) -> Tensor:
        assert target.shape == (2, 1, 8, 8)
        return (logits - target.float()).square().sum()

    with_loss = estimate(Tiny(), sgd, SHAPE, torch.float32, square)
    assert with_loss.activations == cost(Tiny()).activations + PIXELS * 4  # square keeps its input
    assert estimate(Tiny(), sgd, SHAPE, torch.float32, dice_bce_loss).activations > with_loss.activations


def test_weights_and_gradients() -> None:
    model = nn.Sequential(Tiny(nn.Conv2d(4, 1, 1)), nn.BatchNorm2d(1))
    first, last, affine, buffers = 4 * 3 * 9 * 4, 5 * 4, 2 * 4, 2 * 4 + 8  # two statistics and a 64-bit counter
    everything = cost(model)
    assert (everything.weights, everything.gradients) == (first + last + affine + buffers, first + last + affine)
    model[0].first.requires_grad_(False)
    assert (cost(model).weights, cost(model).gradients) == (everything.weights, last + affine)
    assert everything.memory == everything.weights + everything.gradients + everything.activations
    with_state = estimate(model, partial(sgd, momentum=0.9), SHAPE, torch.float32)
    assert with_state.memory == cost(model).memory + last + affine


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        *(partial(fused, fused=True) for fused in (torch.optim.Adam, torch.optim.AdamW)),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
        torch.optim.SGD,
        torch.optim.RMSprop,
        partial(torch.optim.RMSprop, momentum=0.9),
        RMSpropTF,
        partial(RMSpropTF, momentum=0.9),
    ],
)
def test_optimizer_state_is_that_of_a_real_step(make: Callable[..., torch.optim.Optimizer]) -> None:
    model = frozen(Tiny())

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return make([p for p in model.parameters() if p.requires_grad])

    estimated = estimate(model, make_optimizer, SHAPE, torch.float32)
    optimizer = make_optimizer(model)
    model(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    real = {
        name: sum(v.numel() * v.element_size() for v in optimizer.state[parameter].values() if isinstance(v, Tensor))
        for name, parameter in model.named_parameters()
        if optimizer.state.get(parameter)
    }
    assert estimated.optimizer_tensors == real
    assert estimated.optimizer_state == sum(real.values())


def test_an_estimate_changes_nothing() -> None:
    model = nn.Sequential(frozen(Tiny()), nn.BatchNorm2d(1).eval(), nn.Dropout(0.5))
    model(torch.ones(1, 3, 8, 8)).sum().backward()

    def snapshot() -> object:
        values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        gradients = [(p.requires_grad, p.grad if p.grad is None else p.grad.clone()) for p in model.parameters()]
        modules = [(module.training, len(module._forward_hooks)) for module in model.modules()]
        return values, gradients, modules, torch.get_rng_state()

    before = snapshot()
    cost(model)
    torch.testing.assert_close(snapshot(), before, rtol=0, atol=0)


def test_gradients_of_before_do_not_count() -> None:
    model = Tiny()
    model(torch.zeros(1, 3, 8, 8)).sum().backward()
    frozen(model)
    assert cost(model).gradients == 5 * 4


def test_a_layer_that_no_gradient_reaches_costs_no_backward_pass() -> None:
    of_cut = cost(Tiny(cut=True))
    assert of_cut.backward_stops == "last"
    assert of_cut.flops == cost(frozen(Tiny())).flops
    assert of_cut.gradients == cost(frozen(Tiny())).gradients


def test_where_the_backward_pass_stops(built_of: Callable[[str], BuiltModel]) -> None:
    assert cost(Tiny()).backward_stops == "first"
    built = built_of("xception_deeplabv3plus")
    train_deepest(built, 0)
    assert estimate(built.model, sgd, (2, 64, 64), torch.float32).backward_stops == "decoder.project.0"
    train_deepest(built, 2)
    # The block opens with an activation, which has nothing to train and nothing before it that does.
    assert estimate(built.model, sgd, (2, 64, 64), torch.float32).backward_stops == "backbone.block7.rep.1.conv1"


def train_deepest(built: BuiltModel, blocks: int) -> None:
    built.model.requires_grad_(False).eval()
    kept = {path for path, module in built.model.backbone.named_modules() if list(module.parameters())}
    present = [[path for path in paths if path in kept] for paths in built.blocks.values() if kept & set(paths)]
    for path in [f"backbone.{path}" for paths in present[max(0, len(present) - blocks) :] for path in paths]:
        built.model.get_submodule(path).requires_grad_(True).train()
    built.model.decoder.requires_grad_(True).train()


def test_freezing_never_raises_an_estimate(built_of: Callable[[str], BuiltModel]) -> None:
    built = built_of("vgg16_fcn8s")
    costs = []
    for blocks in (0, 1, 3, len(built.blocks)):
        train_deepest(built, blocks)
        costs.append(estimate(built.model, partial(sgd, momentum=0.9), (1, 64, 64), torch.bfloat16))
    for field in ("flops", "activations", "gradients", "optimizer_state", "memory"):
        values = [getattr(of, field) for of in costs]
        assert values == sorted(values)
        assert values[0] < values[-1]
    assert len({of.weights for of in costs}) == 1
