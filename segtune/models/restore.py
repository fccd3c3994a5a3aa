"""Restore a model from the tensors of another run or of a plain file, and report by name what was restored."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segtune.config.model_settings import RestoreSettings
from segtune.errors import UserError, nearest, some
from segtune.models.architecture import BACKBONE, why_foreign
from segtune.models.module_paths import matching
from segtune.models.pretrained import match_tensors
from segtune.models.state_dicts import BATCH_COUNTER, best_prefixes, check_types, read_state_dict
from segtune.models.tap_scale import PREFIX, restored_scales, with_scales
from segtune.runtime.paths import expanded

log = logging.getLogger(__name__)

_PARTS = (BACKBONE, "decoder.")


@dataclass(frozen=True)
class Restored:
    """The report of a restore: names of the model's tensors; `unexpected` holds the file's names after renaming.

    `misshapen` maps a name to the file's shape and the model's. A batch counter that the file lacks is not `missing`.
    `foreign` are tensors of another network's backbone that fit by chance and stay as they are; `warning` says so.
    The fields are written to `restore.json`, so their names stay.
    """

    source: str
    restored: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    excluded: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    warning: str = ""

    def lines(self, most: int = 8) -> list[str]:
        """Return lines for the terminal: counts by part, then a line per kind that names up to `most` tensors."""
        wanted = (*self.restored, *self.missing, *self.misshapen, *self.excluded, *self.foreign)
        counts = [
            f"{part[:-1]} {_count(self.restored, part)} of {_count(wanted, part)} tensors"
            for part in _PARTS
            if _count(wanted, part)
        ]
        excluded = [f"  excluded ({len(self.excluded)}): {some(self.excluded, most)}"] if self.excluded else []
        warning = [f"warning: {self.warning}"] if self.warning else []
        return [f"Restored from {self.source}: {', '.join(counts)}.", *warning, *self._misfits(most), *excluded]

    def _misfits(self, most: int) -> list[str]:
        shapes = [f"{name} (file {file}, model {model})" for name, (file, model) in self.misshapen.items()]
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "shape mismatch": shapes,
            "of another network": self.foreign,
        }
        return [f"  {kind} ({len(names)}): {some(names, most)}" for kind, names in kinds.items() if names]


def restore(model: nn.Module, settings: RestoreSettings, backbone: str = "") -> Restored:
    """Copy the tensors of a file into a model, in place, after checking all of them; return the report.

    `restore.rename` is applied to the file's names first; of several matching prefixes the longest wins. A file without
    any `backbone.` or `decoder.` counts as the one part that `restore.scope` names. Values are converted to the model's
    type. The model's `mean` and `std` belong to its backbone and stay. The scale of a feature is restored with the
    weights of the decoder that read it, as 1 if the file has none. Of a backbone that is another network
    nothing is restored.

    Args:
        model: A model with the parts `backbone` and `decoder`.
        settings: Which file, which part, and what to exclude; `checkpoint` is set.
        backbone: The name of the model's backbone; "" takes a file's backbone for the same network.

    Raises:
        UserError: The file cannot be read, a pattern or a rename matches nothing, no tensor fits, one that fits is not
            finite, or, with `strict`, anything is missing, unexpected or mismatched. The model is untouched.
    """
    if settings.checkpoint is None:
        raise ValueError("restore.checkpoint is not set")
    asked = tuple(part for part in _PARTS if settings.scope in ("all", part[:-1]))
    others = (PREFIX, *(part for part in _PARTS if part not in asked))
    present: dict[str, Tensor] = model.state_dict()
    candidates = [name for name in present if name.startswith(asked)]
    excluded = {name for pattern in settings.exclude for name in matching(pattern, candidates, "restore.exclude")}
    wanted = [name for name in candidates if name not in excluded]
    if not wanted:
        raise UserError(f"restore.exclude leaves nothing to restore of restore.scope={settings.scope}.")

    path = expanded(settings.checkpoint, "restore.checkpoint")
    content = read_state_dict(path, "restore.checkpoint")
    names = _our_names(content, {name: present[name] for name in wanted}, settings, path)
    found = {name: content[theirs] for name, theirs in names.items()}
    match = match_tensors(found, {name: present[name] for name in wanted})
    scales = restored_scales(model, match.fitting)
    found = with_scales(found, scales)
    scale_match = match_tensors(found, {name: present[name] for name in scales})
    is_foreign, warning = why_foreign(path, backbone, found, {name: present[name] for name in wanted}, match.fitting)
    left = {name for name in match.fitting if is_foreign and name.startswith(BACKBONE)}
    result = Restored(
        str(path),
        restored=tuple(name for name in match.fitting + scale_match.fitting if name not in left),
        missing=match.missing + scale_match.missing,
        unexpected=tuple(name for name in match.unexpected if name not in present and not name.startswith(others)),
        misshapen={**match.mismatched, **scale_match.mismatched},
        excluded=tuple(name for name in candidates if name in excluded),
        foreign=tuple(name for name in match.fitting if name in left and not name.endswith(BATCH_COUNTER)),
        warning=warning,
    )
    _check(result, settings, names, wanted)
    check_types(found, result.restored, path)
    broken = [name for name in result.restored if not _is_finite(found[name], present[name].dtype)]
    if broken:
        raise UserError(
            f"{path} holds values that are not finite (NaN or infinity), in {some(broken, 8)}. "
            "Its training run diverged: use an earlier checkpoint, or leave these out with restore.exclude."
        )
    model.load_state_dict({name: found[name] for name in result.restored}, strict=False)
    return result


def _our_names(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], settings: RestoreSettings, path: Path
) -> dict[str, str]:
    """Return the file's name of each tensor by the model's name."""
    theirs = list(found)
    rename = settings.rename or _foreign_prefixes(found, wanted, path)
    for prefix in settings.rename:
        if not any(name.startswith(prefix) for name in theirs):
            raise UserError(
                f"restore.rename: no tensor of {path} has a name that begins with '{prefix}'."
                f"{nearest(prefix, theirs)} The names are: {some(theirs, 4)}."
            )
    names: dict[str, str] = {}
    for name in theirs:
        ours = _renamed(name, rename)
        if ours in names:
            raise UserError(f"restore.rename: {names[ours]} and {name} of {path} both become {ours}.")
        names[ours] = name
    if not names or any(ours.startswith(_PARTS) for ours in names):
        return names
    if settings.scope == "all":
        raise UserError(
            f"{path} does not tell the backbone's tensors from the decoder's: no name begins with backbone. or "
            f"decoder. The names are: {some(list(names), 4)}.\n"
            "If it holds only a backbone, set restore.scope=backbone; otherwise map its names to ours, such as "
            "'+restore.rename={encoder.:backbone.}'."
        )
    return {f"{settings.scope}.{ours}": name for ours, name in names.items()}


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    prefix = max((prefix for prefix in rename if name.startswith(prefix)), key=len, default="")
    return rename.get(prefix, "") + name.removeprefix(prefix)


def _foreign_prefixes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """Return a rename for files that name the parts otherwise, such as `encoder.` for `backbone.`, and say it.

    Raises:
        UserError: The tensors behind several prefixes fit a part equally well.
    """
    rename: dict[str, str] = {}
    for part in _PARTS:
        own = {name.removeprefix(part): tensor for name, tensor in wanted.items() if name.startswith(part)}
        prefixes, fits = best_prefixes(found, own)
        behind = sum(name.startswith(prefixes[0]) for name in found) if prefixes else 0
        if part in prefixes or prefixes in ([], [""]) or 2 * fits < min(len(own), behind):
            continue  # our own name, or none, or a few that fit by chance
        if len(prefixes) > 1:
            raise UserError(
                f"restore.checkpoint={path}: the tensors of {some(prefixes)} fit {part[:-1]} equally well. Name one, "
                f"such as '+restore.rename={{{prefixes[0]}:{part}}}'."
            )
        log.info("%s: names that begin with %s count as %s (restore.rename).", path, prefixes[0], part)
        rename[prefixes[0]] = part
        if prefixes[0].endswith(part):  # a whole model inside another
            rename[prefixes[0].removesuffix(part) + PREFIX] = PREFIX
    return rename


def _check(result: Restored, settings: RestoreSettings, names: Mapping[str, str], wanted: Sequence[str]) -> None:
    if all(name.endswith(BATCH_COUNTER) for name in result.restored):
        theirs = [name if name == ours else f"{name} (renamed {ours})" for ours, name in names.items()]
        shapes = f"; shape mismatch: {len(result.misshapen)}" if result.misshapen else ""
        cause = f" {result.warning}" if result.warning else ""
        raise UserError(
            f"Nothing of {result.source} can be restored: none of the {len(wanted)} tensors wanted fits{shapes}."
            f"{cause}\n"
            f"  The file's {len(names)}: {some(theirs, 4)}\n"
            f"  Wanted: {some(wanted, 4)}\n"
            "Check restore.checkpoint and restore.scope, or map the file's names to ours with restore.rename."
        )
    misfits = result._misfits(20)
    if settings.strict and misfits:
        raise UserError(
            "\n".join([f"restore.strict=true, but {result.source} does not fit the model:", *misfits])
            + "\nName what should stay as it is in restore.exclude, or set restore.strict=false."
        )


def _is_finite(tensor: Tensor, dtype: torch.dtype) -> bool:
    # As the model will hold it: a large float64 becomes infinity in float32.
    return bool(tensor.to(dtype if dtype.is_floating_point else torch.float32).isfinite().all())


def _count(names: Iterable[str], part: str) -> int:
    return sum(name.startswith(part) for name in names)
