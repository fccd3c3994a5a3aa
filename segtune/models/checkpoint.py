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
from segtune.models.pretrained import LoadedWeights
from segtune.models.tap_scale import with_scales
from segtune.runtime.files import replacing
from segtune.runtime.paths import find_checkpoint

#: Increased whenever the meaning of a checkpoint's entries changes.
FORMAT = 2


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
    """

    name: str
    settings: Settings
    taps: Mapping[str, str]
    source: str | None
    new: tuple[str, ...]
    model: Mapping[str, Tensor]
    state: Mapping[str, Any] | None = None
    optimizer: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, path: str | Path) -> "Checkpoint":
        """Return the checkpoint that `save` wrote, on the CPU. Nothing in the file is executed.

        Raises:
            UserError: The file is missing, unreadable or no segtune checkpoint, or an entry is invalid.
        """
        file = Path(path).expanduser()
        content = _read(file)
        for entry, (expected, required, fits) in _ENTRIES.items():
            if required and entry not in content:
                raise UserError(f"The checkpoint {file} cannot be used: it lacks the entry '{entry}', {expected}.")
            if entry in content and not fits(content[entry]):
                got = _kind(content[entry])
                raise UserError(
                    f"The checkpoint {file} cannot be used: entry '{entry}': got {got}; expected {expected}."
                )
        try:
            settings = parse(Settings, content["settings"])
        except UserError as error:
            raise UserError(f"The settings in the checkpoint {file} cannot be used. {error}") from error
        weights = content["weights"]
        return cls(
            name=str(path),
            settings=settings,
            taps=content["taps"],
            source=weights["source"],
            new=tuple(weights["new"]),
            model=content["model"],
            state=content.get("state"),
            optimizer=content.get("movers"),
        )

    @classmethod
    def of(
        cls,
        built: BuiltModel,
        settings: Settings,
        state: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ) -> "Checkpoint":
        """Return a checkpoint of a model; its tensors are the model's own, not copies."""
        taps = {role: feature.node for role, feature in built.model.features.items()}
        return cls("", settings, taps, built.weights.source, built.new, built.model.state_dict(), state, optimizer)

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
            "state": self.state,
            "movers": self.optimizer,
        }
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save({entry: value for entry, value in content.items() if value is not None}, file)

    def rebuild(self, settings: Settings | None = None) -> BuiltModel:
        """Return the model, rebuilt; nothing is downloaded.

        Args:
            settings: Settings of a resumed run, whose phases may stop gradients elsewhere; None: the checkpoint's.

        Raises:
            UserError: The tensors do not fit the model that settings and taps describe.
        """
        settings = settings or self.settings
        backbone = replace(settings.backbone, weights="none")
        built = assemble(backbone, self.taps, settings.decoder, gradient_stops(settings))
        present = built.model.state_dict()
        tensors = with_scales(self.model, present)
        shapes, wanted = ({name: tensor.shape for name, tensor in each.items()} for each in (tensors, present))
        misfits = [name for name in wanted | shapes if shapes.get(name) != wanted.get(name)]
        if misfits:
            raise UserError(
                f"The checkpoint {self.name} cannot be used: its tensors do not match the model that it describes; "
                f"{len(misfits)} are missing on one side or differ in shape: {some(misfits)}."
            )
        built.model.load_state_dict(tensors)
        return replace(built, weights=LoadedWeights(self.source), new=self.new)


def _is_dict_of(value: Any, kind: type) -> bool:
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


#: The entries of a file: description, whether it is required, and the check.
_ENTRIES: Mapping[str, tuple[str, bool, Callable[[Any], bool]]] = {
    "settings": ("the settings by name", True, partial(_is_dict_of, kind=object)),
    "taps": ("the tapped layer of each role", True, partial(_is_dict_of, kind=str)),
    "weights": ("the 'source' of the weights and a list of what is 'new'", True, _is_weights),
    "model": ("the tensors by name", True, partial(_is_dict_of, kind=Tensor)),
    "state": ("the run's state by name", False, partial(_is_dict_of, kind=object)),
    "movers": ("the optimizer's states by name", False, partial(_is_dict_of, kind=object)),
}


def _read(path: Path) -> dict[str, Any]:
    find_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes lead the reader into
        # PyTorch's text advises to run the file's code, so it is not passed on.
        reason = error if isinstance(error, OSError) else type(error).__name__
        raise UserError(
            f"Cannot read the checkpoint {path}: it is damaged, or was written by another program ({reason}).\n"
            "Expected a file that `segtune train` wrote, such as RUN/checkpoints/best.pt."
        ) from error
    if not isinstance(content, dict) or "settings" not in content or "model" not in content:
        raise UserError(f"{path} is not a segtune checkpoint: it lacks the entries 'settings' and 'model'.")
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content.get('format')}; this version of segtune reads format {FORMAT}."
        )
    return content
