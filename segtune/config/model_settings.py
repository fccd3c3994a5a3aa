"""Settings of the model: backbone, decoder, and the checkpoint that it starts from."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from segtune.config.types import STRICT, Count, Outputs, UnitInterval


@dataclass(frozen=True, config=STRICT)
class BackboneSettings:
    """The network, built in or any CNN of timm, its weights, and its output stride (None: the network's own)."""

    name: str
    weights: str = "auto"
    output_stride: Literal[8, 16, 32] | None = None


@dataclass(frozen=True, config=STRICT)
class FCN8sSettings:
    """FCN-8s: `outputs` 1 is a sigmoid logit, 2 a softmax over background and object."""

    name: Literal["fcn8s"] = "fcn8s"
    outputs: Outputs = 1


@dataclass(frozen=True, config=STRICT)
class DeepLabV3PlusSettings:
    """DeepLabV3+: widths in channels; `atrous_rates` None: chosen by the high tap's stride."""

    name: Literal["deeplabv3plus"] = "deeplabv3plus"
    outputs: Outputs = 1
    channels: Count = 256
    low_channels: Count = 48
    atrous_rates: list[Count] | None = None
    separable: bool = True
    dropout: UnitInterval = 0.5

    def __post_init__(self) -> None:
        if self.atrous_rates is not None and len(self.atrous_rates) != 3:
            raise ValueError(
                f"atrous_rates: got {self.atrous_rates}; expected three dilation rates, such as [6, 12, 18]"
            )


DecoderSettings = Annotated[FCN8sSettings | DeepLabV3PlusSettings, Field(discriminator="name")]


@dataclass(frozen=True, config=STRICT)
class RestoreSettings:
    """Start from the tensors of another run's checkpoint, or of a plain state dict.

    `scope` is the part to restore; `exclude` names tensors of this model to leave as they are, by module path or `re:`
    pattern; `rename` maps prefixes of the file's names to ours; `strict` makes every mismatch an error.
    """

    checkpoint: str | None = None
    scope: Literal["all", "backbone", "decoder"] = "all"
    exclude: list[str] = field(default_factory=list)
    rename: dict[str, str] = field(default_factory=dict)
    strict: bool = False
