"""The schema of a run's settings: frozen dataclasses, validated together by `segtune.config.parse`."""

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from segtune.config.cache_settings import CacheSettings
from segtune.config.data_settings import AugmentSettings, DataSettings, ImageSettings
from segtune.config.loss_settings import LossSettings
from segtune.config.model_settings import BackboneSettings, DecoderSettings, RestoreSettings
from segtune.config.training_settings import CheckpointSettings, FreezeSettings, OptimizerSettings, TrainSettings
from segtune.config.types import STRICT


@dataclass(frozen=True, config=STRICT)
class RunSettings:
    """All settings of a training run, except that data.root may be missing."""

    backbone: BackboneSettings
    taps: dict[str, str]
    decoder: DecoderSettings
    freeze: FreezeSettings
    data: ImageSettings
    augment: AugmentSettings
    loss: LossSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    checkpoint: CheckpointSettings
    restore: RestoreSettings = field(default_factory=RestoreSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    seed: Annotated[int, Field(ge=0)] = 0
    run_dir: str | None = None
    resume: str | None = None
    repeat: str | None = None

    def __post_init__(self) -> None:
        if self.freeze.decoder not in (None, self.decoder.name):
            raise ValueError(
                f"freeze: this policy trains parts of decoder={self.freeze.decoder} by name, "
                f"but the decoder is {self.decoder.name}. Choose decoder={self.freeze.decoder}, "
                "or another policy, such as freeze=two_phase"
            )
        for name, phase in self.freeze.phases.items():
            chosen, needs = self.optimizer.of_phase(phase), ""
            follows = phase.schedule in (None, self.optimizer.schedule)
            group = "optimizer" if follows else f"freeze.phases.{name}"
            if chosen.schedule == "multistep" and not (chosen.milestones or chosen.milestone_steps):
                needs = (
                    "schedule multistep needs milestones, the epochs after which the learning rate falls: "
                    f"{group}.milestones=[8,11], or {group}.milestone_steps"
                )
            elif chosen.schedule == "poly" and chosen.cycle and not (chosen.decay_epochs or chosen.decay_steps):
                needs = f"cycle needs the length of one: {group}.decay_epochs=4, or {group}.decay_steps"
            if needs:
                raise ValueError(f"freeze.phases.{name}: {needs}{'; or those of the phase' if follows else ''}")


@dataclass(frozen=True, config=STRICT)
class Settings(RunSettings):
    """Everything `train` needs."""

    data: DataSettings
