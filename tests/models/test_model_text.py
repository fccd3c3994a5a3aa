"""The table of a model's layers: by hand, and against the layers of a real model as it computes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segtune.models.build import BuiltModel
from segtune.models.model_text import layer_table


class Small(nn.Module):
    """A network whose layers are defined in another order than they compute, with parameters beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.unused = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
        self.gain = nn.Parameter(torch.ones(1))
        self.scale = nn.BatchNorm1d(3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head((self.gain * self.scale.weight[0] * self.body(images.float())).mean((2, 3)))
        return out


def test_layers_are_listed_as_they_compute_with_shapes_and_parameters() -> None:
    model = Small()
    assert layer_table(model, (7, 1000)).splitlines() == [
        "137 parameters; input N, 3, 7, 1000",
        "",
        "| layer | kind | returns (N, C, H, W) | parameters |",
        "|---|---|---|---:|",
        "| `body.0` | Conv2d | N, 4, 4, 500 | 112 |",
        "| `body.1` | BatchNorm2d | N, 4, 4, 500 | 8 |",
        "| `head` | Linear | N, 2 | 10 |",
        "| the model itself | Small | N, 2 | 1 |",
        "| `scale` | BatchNorm1d | is not called | 6 |",
    ]
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_real_model_is_listed_whole(built_of: Callable[[str], BuiltModel]) -> None:
    model = built_of("xception_deeplabv3plus").model.eval()
    rows = [row.strip("| ").split(" | ") for row in layer_table(model, (64, 96)).splitlines()[4:]]
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    with torch.inference_mode():
        model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    convolutions = {name.strip("`"): shape for name, kind, shape, _ in rows if kind.endswith("Conv2d")}
    assert convolutions == {name: "N, " + ", ".join(map(str, out.shape[1:])) for name, out in seen.items()}
    assert sum(int(row[-1].replace(",", "")) for row in rows) == sum(p.numel() for p in model.parameters())
