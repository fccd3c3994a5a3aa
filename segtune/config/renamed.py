"""Settings that were renamed, whose old names still work, and names that other programs use."""

import re
from collections.abc import Collection, Mapping
from typing import Any

#: Old name to new, as dotted names; `*` stands for the name of any phase.
RENAMED = {"average": "tta", "freeze.phases.*.cut": "freeze.phases.*.stop_gradient"}

#: Names of other programs, and what they are called here.
SYNONYMS = {
    **dict.fromkeys(("learning_rate", "base_lr", "lr0"), "lr"),
    **dict.fromkeys(("num_epochs", "max_epochs", "n_epochs", "epoch", "e"), "epochs"),
    **dict.fromkeys(("batch", "bs", "b", "batchsize", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("imgsz", "img_size", "imgsize", "input_size", "resolution", "crop_size", "size"), "image_size"),
    **dict.fromkeys(("num_workers", "n_workers", "j"), "train.workers"),
    **dict.fromkeys(("gpu", "gpus", "cuda"), "train.device"),
    **dict.fromkeys(("report_to", "log_with", "logger", "loggers", "tracker"), "train.trackers"),
    **dict.fromkeys(("amp", "fp16", "mixed_precision"), "train.precision"),
    **dict.fromkeys(("pretrained", "pretrain"), "backbone.weights"),
    **dict.fromkeys(("arch", "encoder", "encoder_name"), "backbone"),
    **dict.fromkeys(("data_dir", "data_root", "data_path", "dataset_dir", "root"), "data.root"),
    **dict.fromkeys(("ignore_index", "ignore_label", "ignore_value", "void", "void_label"), "data.ignore"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "sched", "learning_rate_decay_type"), "optimizer.schedule"),
    **dict.fromkeys(("learning_rate_decay_factor", "decay_rate"), "optimizer.gamma"),
    **dict.fromkeys(("num_epochs_per_decay", "step_size"), "optimizer.decay_epochs"),
    **dict.fromkeys(("end_learning_rate", "min_lr", "eta_min"), "optimizer.end_factor"),
    **dict.fromkeys(("warmup_steps", "warmup_epochs", "warmup_ratio"), "optimizer.warmup"),
    **dict.fromkeys(("opt_epsilon", "opt_eps"), "optimizer.epsilon"),
    **dict.fromkeys(("output_dir", "out_dir", "save_dir", "work_dir", "logdir"), "run_dir"),
}


def new_name(name: str) -> str:
    """Return the new name of a setting, or of one inside it, as in `tta.flips` for `average.flips`."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        head = ".".join(parts[:count])
        if (new := _renamed(head)) != head:
            return ".".join([new, *parts[count:]])
    return name


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        if match := re.fullmatch(re.escape(old).replace(re.escape("*"), r"(\w+)"), name):
            return new.replace("*", "".join(match.groups()))
    return name


def with_new_names(
    values: Mapping[str, Any], prefix: str = "", given: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return nested settings under their new names, and the old names that were used.

    Old names with the value None are dropped: files of earlier runs contain all settings. Where both names are
    present the old one wins, because the new one is a default; unless the new one is `given`, on the command line.

    Args:
        values: The settings.
        prefix: The dotted name of what holds them, and a dot.
        given: Dotted new names that stand above what a file says.
    """
    found: dict[str, Any] = {}
    old_ones: dict[str, Any] = {}
    used: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        new = _renamed(name)
        if isinstance(value, Mapping) and new == name:
            value, inside = with_new_names(value, f"{name}.", given)
            used += inside
        if new == name:
            found[key] = value
        elif value is not None:
            used.append(name)
            if isinstance(value, Mapping):
                value = {key: each for key, each in value.items() if f"{new}.{key}" not in given}
            if new not in given:
                old_ones[new.removeprefix(prefix)] = value
    for key, value in old_ones.items():
        found[key] = {**found[key], **value} if isinstance(found.get(key), dict) else value
    return found, used


def timm_name(name: str) -> str:
    """Return the name of a timm network without what the Hugging Face Hub writes before it, such as `hf_hub:timm/`."""
    return re.sub(r"^(https://huggingface\.co/|hf[_-]hub:)?(timm/)?", "", name)
