"""Checkpoints: written atomically, read without running code, self-contained."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError, some
from segtune.models.build import BuiltModel, assemble, gradient_stops
from segtune.models.finite import check_finite
from segtune.models.module_paths import within
from segtune.models.pretrained import LoadedWeights
from segtune.models.progress import State
from segtune.models.tap_scale import PREFIX, with_scales
from segtune.models.tensor_files import read_file, unusable
from segtune.runtime.files import replacing
from segtune.runtime.paths import expanded, find_checkpoint

#: Increased whenever the meaning of a checkpoint's entries changes.
FORMAT = 3
#: Of this earlier format no model had scales of its features.
_WITHOUT_SCALES = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model and what is needed to use it or to resume its training run.

    Attributes:
        name: The path it was loaded from, as given.
        settings: The settings of the training run.
        taps: Role to tapped layer.
        source: Where the backbone's pretrained weights came from, None for random ones.
        new: Module paths that had no pretrained weights.
        model: The model's tensors by name.
        state: The progress of the training run; None if the file has none.
        optimizer: The states of optimizer, schedule and gradient scaler; None if training cannot resume from the file.
        data: Names and checksums of the images that the run trains and validates on; None in older files.
    """

    name: str
    settings: Settings
    taps: Mapping[str, str]
    source: str | None
    new: tuple[str, ...]
    model: Mapping[str, Tensor]
    state: State | None = None
    optimizer: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, path: str | Path) -> "Checkpoint":
        """Return the checkpoint that `save` wrote, on the CPU. Nothing in the file is executed.

        Raises:
            UserError: The file is missing, unreadable or no segtune checkpoint, or an entry is invalid.
        """
        file = find_checkpoint(path)
        content = _read(file)
        for entry, (expected, required, fits) in _ENTRIES.items():
            if required and entry not in content:
                raise UserError(f"{_begin(file)}: it lacks the entry '{entry}', {expected}.")
            if entry in content and not fits(content[entry]):
                raise UserError(f"{_begin(file)}: entry '{entry}': got {_kind(content[entry])}; expected {expected}.")
        for name, tensor in content["model"].items():
            if why := unusable(tensor):
                raise UserError(f"{_begin(file)}: its tensor {name} is {why}.")
        try:
            if not _is_plain(content["settings"]):
                raise UserError("They hold something else than numbers, text, and lists of these by name.")
            settings = parse(Settings, content["settings"])
        except (UserError, RecursionError) as error:
            reason = "They contain themselves." if isinstance(error, RecursionError) else error
            raise UserError(f"The settings in the checkpoint {file} cannot be used. {reason}") from error
        try:
            state = State.read(content["state"], settings.freeze.phases) if "state" in content else None
        except UserError as error:
            raise UserError(f"The state of the run in the checkpoint {file} cannot be used. {error}") from error
        weights, model = content["weights"], content["model"]
        if content["format"] == _WITHOUT_SCALES:
            model = with_scales(model, [PREFIX + role for role in content["taps"]])
        return cls(
            name=str(path) if file == expanded(path) else str(file),
            settings=settings,
            taps=content["taps"],
            source=weights["source"],
            new=tuple(weights["new"]),
            model=model,
            state=state,
            optimizer=content.get("movers"),
            data=content.get("data"),
        )

    @classmethod
    def of(
        cls,
        built: BuiltModel,
        settings: Settings,
        state: State | None = None,
        optimizer: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> "Checkpoint":
        """Return a checkpoint of a model; its tensors are the model's own, not copies."""
        taps = {role: feature.node for role, feature in built.model.features.items()}
        return cls(
            "", settings, taps, built.weights.source, built.new, built.model.state_dict(), state, optimizer, data
        )

    def save(self, path: Path) -> None:
        """Write tensors and plain values, atomically.

        Raises:
            UserError: The file cannot be written; an earlier file of that name is untouched.
        """
        content = {
            "format": FORMAT,
            "settings": asdict(self.settings),
            "taps": dict(self.taps),
            "weights": {"source": self.source, "new": list(self.new)},
            "model": self.model,
            "state": asdict(self.state) if self.state else None,
            "movers": self.optimizer,
            "data": self.data,
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save({entry: value for entry, value in content.items() if value is not None}, file)

    def rebuild(self, settings: Settings | None = None) -> BuiltModel:
        """Return the model, rebuilt; nothing is downloaded.

        Args:
            settings: Settings of a resumed run, whose phases may stop gradients elsewhere; None: the checkpoint's.

        Raises:
            UserError: The tensors do not fit the model that settings and taps describe, there is no such model, or they
                are not finite.
        """
        settings = settings or self.settings
        backbone = replace(settings.backbone, weights="none")
        begin = _begin(self.name)
        try:
            built = assemble(backbone, self.taps, settings.decoder, gradient_stops(settings))
        except (UserError, RuntimeError, MemoryError, OverflowError) as error:  # settings of any size are valid
            raise UserError(f"{begin}: the model that it describes cannot be built. {error}") from error
        own = built.model.state_dict()
        misfits = [name for name in {**own, **self.model} if _differs(own.get(name), self.model.get(name))]
        if misfits:
            raise UserError(
                f"{begin}: its tensors do not match the model that it describes; "
                f"{len(misfits)} are missing on one side or differ in shape or type: {some(misfits)}."
            )
        known = {*own, *dict(built.model.named_buffers())}
        unknown = [f"weights.new: {path}" for path in self.new if not any(within(name, [path]) for name in own)]
        unknown += [f"state.frozen: {name}" for name in (self.state.frozen if self.state else ()) if name not in known]
        if unknown:
            raise UserError(f"{begin}: the model that it describes has no {some(unknown)}.")
        check_finite(f"The checkpoint {self.name}", self.model)
        built.model.load_state_dict(self.model)
        return replace(built, weights=LoadedWeights(self.source), new=self.new)


def _begin(name: str | Path) -> str:
    return f"The checkpoint {name} cannot be used"


def _differs(own: Tensor | None, file: Tensor | None) -> bool:
    return own is None or file is None or own.shape != file.shape or own.dtype != file.dtype


def _is_dict_of(value: Any, kind: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


def _is_weights(value: Any) -> bool:
    if not isinstance(value, dict) or not {"source", "new"} <= value.keys():
        return False
    source, new = value["source"], value["new"]
    return isinstance(source, str | None) and isinstance(new, list) and all(isinstance(path, str) for path in new)


def _kind(value: Any) -> str:
    """Return a short description of a value, which may be large."""
    inside = sorted({type(each).__name__ for each in value.values()}) if isinstance(value, dict) else []
    return f"a dict of {', '.join(inside)}" if inside else type(value).__name__


def _is_optimizer(value: Any) -> bool:
    """Return whether a value has the structure that `OptimState.state_dict` returns; it need not fit a model."""
    if not _is_dict_of(value, dict) or not {"optimizer", "schedule", "scaler"} <= value.keys():
        return False
    states, groups = value["optimizer"].get("state"), value["optimizer"].get("param_groups")
    last = value["schedule"].get("last_epoch")
    if not isinstance(states, dict) or not isinstance(groups, list) or type(last) is not int or last < 0:
        return False
    if not all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups):
        return False
    numbers = [number for group in groups for number in group["params"]]
    return (
        all(type(number) is int for number in numbers)
        and numbers == list(range(len(numbers)))
        and all(type(index) is int and _is_dict_of(state, Tensor | int | None) for index, state in states.items())
        and states.keys() <= set(numbers)
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


#: The entries of a file: description, whether it is required, and the check.
_ENTRIES: Mapping[str, tuple[str, bool, Callable[[Any], bool]]] = {
    "settings": ("the settings by name", True, partial(_is_dict_of, kind=object)),
    "taps": ("the tapped layer of each role", True, partial(_is_dict_of, kind=str)),
    "weights": ("the 'source' of the weights and a list of what is 'new'", True, _is_weights),
    "model": ("the tensors by name", True, partial(_is_dict_of, kind=Tensor)),
    "state": ("the run's state by name", False, partial(_is_dict_of, kind=object)),
    "movers": ("the states of optimizer, schedule and scaler by name", False, _is_optimizer),
    "data": ("the record of the data by name", False, partial(_is_dict_of, kind=object)),
}


def _read(path: Path) -> dict[str, Any]:
    expected = "Expected a file that `segtune train` wrote, such as RUN/checkpoints/best.pt."
    content = read_file(path, "checkpoint", expected, "was written by another program")
    if not isinstance(content, dict) or "settings" not in content or "model" not in content:
        inside = some(map(str, content), 4) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(
            f"{path} is not a segtune checkpoint: it lacks the entries 'settings' and 'model'; it holds {inside}. "
            "To train from its tensors: train restore.checkpoint=PATH, or backbone.weights=PATH."
        )
    number = content.get("format")
    if type(number) is not int or number not in (_WITHOUT_SCALES, FORMAT):
        got = number if isinstance(number, int | str | float | None) else type(number).__name__
        raise UserError(
            f"{path} has checkpoint format {got}; this version of segtune reads formats {_WITHOUT_SCALES} and {FORMAT}."
        )
    return content
