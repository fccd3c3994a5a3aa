"""What all tests share: plain surroundings, and networks built once, with random weights and without a download.

Nothing heavy is imported here: pytest-xdist's own process, which runs no test, loads this file before it starts others.
"""

import copy
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from torch import nn

    from segtune.models.build import BuiltModel

CONF = Path(__file__).parents[1] / "conf"

# What libraries read when they load, and other processes inherit.
os.environ |= {
    "OMP_NUM_THREADS": "1",  # PyTorch's own threads would only fight over the cores with the other test processes
    "PYTHONUTF8": "1",  # pytest-xdist's processes too, so the locale is none of their business
    "MPLBACKEND": "agg",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_CACHE": "/nonexistent",  # no weights that happen to be on this machine
    "TORCH_HOME": "/nonexistent",
}
for name in (
    *("COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),  # of the terminal
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),  # of a batch system
    *("HYDRA_FULL_ERROR", "PYTHONWARNINGS"),
):
    os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep features in a folder of the tests, not in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def usual_signals() -> Iterator[None]:
    """Let signals mean what they mean at a terminal; in the background SIGINT is ignored, with nohup SIGHUP."""
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler}
    usual |= dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), signal.SIG_DFL)
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def slow(*values: Any) -> Any:
    """Return values for `parametrize` that only the slow tests try."""
    return pytest.param(*values, marks=pytest.mark.slow)


def enliven(network: "nn.Module") -> None:
    """Set every BatchNorm to random values, as training would: fresh ones of residual branches multiply by zero."""
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)


@pytest.fixture(scope="session")
def network_of() -> Callable[[str], "nn.Module"]:
    """Return a fresh copy of a whole backbone by name, in evaluation mode, with random weights."""
    import timm
    import torch

    from segtune.models.backbones.registry import BACKBONES

    create = timm.create_model

    def create_narrow(architecture: str, **options: Any) -> "nn.Module":
        """Create a network; of VGG16's two fully connected layers the first gets 32 channels, for memory and time."""
        narrow: dict[str, Any] = {"mlp_ratio": 32 / 4096} if architecture == "vgg16" else {}
        return create(architecture, **options, **narrow)

    @cache
    def original(name: str) -> "nn.Module":
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setattr(timm, "create_model", create_narrow)
            torch.manual_seed(0)
            network = BACKBONES[name].build().eval()
            enliven(network)
        return network

    return lambda name: copy.deepcopy(original(name))


@pytest.fixture(scope="session")
def built_of(network_of: Callable[[str], "nn.Module"]) -> Callable[[str], "BuiltModel"]:
    """Return a fresh copy of a model by BACKBONE_DECODER, with the taps of `conf/taps` and a narrow decoder."""
    import torch

    from segtune.config.model_settings import BackboneSettings, DecoderSettings, DeepLabV3PlusSettings, FCN8sSettings
    from segtune.models.backbones.registry import BACKBONES
    from segtune.models.build import build_model

    decoders: dict[str, DecoderSettings] = {
        "deeplabv3plus": DeepLabV3PlusSettings(channels=16, low_channels=8),
        "fcn8s": FCN8sSettings(),
    }

    @cache
    def original(pair: str) -> "BuiltModel":
        name, decoder = pair.split("_")
        taps = yaml.safe_load((CONF / "taps" / f"{pair}.yaml").read_text(encoding="utf-8"))
        network = network_of(name)
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.setitem(BACKBONES, name, replace(BACKBONES[name], build=lambda: network))
            torch.manual_seed(0)
            return build_model(BackboneSettings(name, weights="none"), taps, decoders[decoder])  # type: ignore[arg-type]

    return lambda pair: copy.deepcopy(original(pair))


@pytest.fixture(scope="module")
def quick(network_of: Callable[[str], "nn.Module"]) -> Iterator[None]:
    """Leave out what takes longer than short trainings: building a whole ResNet50, estimating what a phase costs."""
    from segtune.models.backbones.registry import BACKBONES
    from segtune.training import phase_summary
    from segtune.training.step_cost import StepCost

    cost = StepCost(flops=0, activations=0, gradients=0, optimizer_tensors={}, weights=0, backward_stops="conv1")
    network_of("resnet50")  # kept from here on
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet50", replace(BACKBONES["resnet50"], build=lambda: network_of("resnet50")))
        patch.setattr(phase_summary, "estimate", lambda *_: cost)
        yield
