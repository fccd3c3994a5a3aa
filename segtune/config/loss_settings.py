"""Settings of the losses."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from segtune.config.types import STRICT, EmptyMaskRule, NotNegative, Positive, without_fields_of


@dataclass(frozen=True, config=STRICT)
class BCESettings:
    """Binary cross-entropy."""

    name: Literal["bce"] = "bce"


@dataclass(frozen=True, config=STRICT)
class DiceSettings:
    """Soft Dice; `empty` is its rule for masks without foreground."""

    name: Literal["dice"] = "dice"
    per_image: bool = True
    empty: EmptyMaskRule = "background"
    smooth: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class DiceBCESettings:
    """The weighted sum of soft Dice and binary cross-entropy."""

    name: Literal["dice_bce"] = "dice_bce"
    dice_weight: NotNegative = 1.0
    bce_weight: NotNegative = 1.0
    per_image: bool = True
    empty: EmptyMaskRule = "background"
    smooth: Positive = 1.0

    def __post_init__(self) -> None:
        if self.dice_weight + self.bce_weight == 0:
            raise ValueError("dice_weight and bce_weight are both 0: the loss would be constant")


def _own_options(value: Any) -> Any:
    """Settings that were saved before each loss had a class of its own name the options of all."""
    classes = (DiceBCESettings, DiceSettings, BCESettings)
    name = value.get("name") if isinstance(value, Mapping) else None
    return without_fields_of(value, classes, next((each for each in classes if each.name == name), None))


LossSettings = Annotated[
    Annotated[DiceBCESettings | DiceSettings | BCESettings, Field(discriminator="name")], BeforeValidator(_own_options)
]
