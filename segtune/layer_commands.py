"""The commands that help to choose layers: `taps` and `probe`."""

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from segtune.backbones import spec_of
from segtune.build import DECODERS, build_dataset, build_model, build_splits, choose_taps, look_for_data
from segtune.compute import Compute, choose_compute
from segtune.config import ProbeSettings, Settings, TapsSettings, UserError, known
from segtune.console import bar, compact_table, counting, print_table, say, set_up_logging
from segtune.data.pairs import Pair
from segtune.dilation import dry_run, set_output_stride
from segtune.fields import Fields
from segtune.layer_table import Saving, layer_tables, measured_saving, row, saving_table
from segtune.layers import Anatomy, Layer, describe
from segtune.plots import draw_network, draw_probe
from segtune.probe import Group, Probe
from segtune.recommend import MOST_CANDIDATES, Findings, candidates, pretrained, search
from segtune.recommend import row as finding
from segtune.records import keep_settings, write_csv
from segtune.taps import cut
from segtune.weights import load_weights


def taps(settings: TapsSettings) -> list[dict[str, Any]]:
    """Show the layers of a backbone, the tap map, and what the cut saves; return the layers as plain values.

    Raises:
        UserError: The backbone cannot be traced, the taps cannot be used, or the pictures are too small for them.
    """
    set_up_logging()
    anatomy, chosen = _anatomy(settings)
    roles = {layer.name: role for role, layer in chosen.items()}
    rows = [row(layer, anatomy, roles.get(layer.name, "")) for layer in anatomy.layers]
    if settings.picture:
        draw_network(Path(settings.picture).expanduser(), anatomy, chosen, settings.data.size)
    if settings.format == "json":
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    elif settings.format == "csv":
        writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _show_layers(settings, anatomy, chosen)
    return rows


def _anatomy(settings: Settings) -> tuple[Anatomy, dict[str, Layer]]:
    """Describe the backbone for pictures of the size set, and the layer of each role."""
    spec = spec_of(settings.backbone.name)
    anatomy = describe(spec, settings.data.size, settings.backbone.output_stride)
    named = choose_taps(spec, settings.taps, settings.decoder)
    chosen = {role: anatomy.find(tap) for role, tap in named.items()}
    deepest = list(chosen.values())[-1]
    if min(deepest.height, deepest.width) < 2:
        height, width = settings.data.size
        raise UserError(
            f"Pictures of {height} x {width} pixels are too small for the deepest tap, {deepest.name}: its map would "
            f"be of {deepest.height} x {deepest.width} pixels, and could not tell where anything is. Its stride is "
            f"{deepest.stride}: give {2 * deepest.stride} pixels or more (data.image_size), or a shallower tap."
        )
    return anatomy, chosen


def _show_layers(settings: TapsSettings, anatomy: Anatomy, chosen: Mapping[str, Layer]) -> None:
    height, width = settings.data.size
    say(f"{anatomy.spec.name} + {settings.decoder.name}, for pictures of {height} x {width} pixels (data.image_size)")
    print_table(*layer_tables(anatomy, chosen, details=settings.details))
    say(
        "sees: the receptive field in input pixels, + where something of the whole picture comes on top; parameters "
        "and multiply-adds: up to there, of the whole backbone without its classifier; dim: cut off."
    )
    saving = _saving(settings, anatomy)
    if settings.measure:
        say(f"measuring a forward pass of {settings.train.batch_size} pictures …")
        saving |= measured_saving(settings, {role: layer.name for role, layer in chosen.items()})
    print_table(saving_table(saving))
    overrides = " ".join(f"taps.{role}={layer.name}" for role, layer in chosen.items())
    say(f"The tap map as settings: {overrides}")
    if not settings.details:
        say("details=true shows every layer; each can be a tap. `python -m segtune probe` measures them on your masks.")
    if settings.picture:
        say(f"The network is drawn in {settings.picture}.")


def _saving(settings: Settings, anatomy: Anatomy) -> Saving:
    """Compare the cut backbone with the whole one; a model is built, without values, to see that all fits together."""
    with torch.device("meta"):
        model = build_model(replace(settings.backbone, weights="none"), settings.taps, settings.decoder).model
    parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    macs = anatomy.macs_of(feature.node for feature in model.features.values())
    return {"parameters": (parameters, anatomy.parameters), "multiply-adds": (macs, anatomy.macs)}


def probe(settings: ProbeSettings, folder: Path) -> Findings:
    """Measure what each layer tells about the user's masks, and recommend a tap map.

    Writes `probe.csv`, `probe.png` and `config.yaml` to the folder.

    Raises:
        UserError: Data, weights or layers cannot be used.
    """
    set_up_logging()
    torch.manual_seed(settings.seed)
    if settings.restore.checkpoint:
        raise UserError("The probe reads no restore.checkpoint: it measures the backbone of backbone.weights.")
    look_for_data(settings.data, settings.seed, settings.train.workers)
    compute = choose_compute(settings.train)
    size = settings.data.evaluation_size
    anatomy, current = _anatomy(replace(settings, data=replace(settings.data, image_size=list(size))))
    also = {name: _group(layers, anatomy) for name, layers in settings.compare.items()}
    mine = tuple(layer.name for layer in current.values())
    also = {"current taps": mine} | also
    with counting("preparing the data") as progress:
        splits = build_splits(settings.data, settings.seed, settings.train.workers, progress)
    train = _spread(splits["train"], settings.train_images)
    val = _spread(splits["val"], settings.val_images)
    _check_pictures(train, val)
    names, job = _make_probe(settings, anatomy, also, (train, val), compute)
    roles = len(DECODERS[settings.decoder.name].roles)  # type: ignore[attr-defined]
    say(
        f"{anatomy.spec.name} on {compute}: {len(names)} candidates, a linear classifier each on {len(train)} training "
        f"pictures of {size[0]} x {size[1]} pixels, measured on {len(val)} validation pictures"
    )
    with bar(f"probing {len(names)} layers", roles * job.pictures) as show:
        done = [0]

        def advance(images: int) -> None:
            done[0] += images
            show(done[0], "pictures")

        job.advance = advance
        found = search(job, names, roles, list(also.values()), anatomy)
    _report(settings, anatomy, found, also, folder)
    return found


def _check_pictures(train: list[Pair], val: list[Pair]) -> None:
    if len(train) < 5 or not val:
        raise UserError(
            f"There are {len(train)} training and {len(val)} validation pictures: too few to say which layers suit "
            "them. The probe needs at least 5 to fit on and 1 to measure on, better 50 and more of each."
        )
    if len(val) < 5:
        say(f"Only {len(val)} validation pictures: take the differences with care (data.val_share gives more).")


def _spread(pairs: list[Pair], most: int | None) -> list[Pair]:
    """Take some pictures in regular distances, so that all parts of a sorted split are there."""
    if most is None or most >= len(pairs):
        return pairs
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, most).round().astype(int)]


def _group(layers: list[str], anatomy: Anatomy) -> Group:
    return tuple(sorted({anatomy.find(name).name for name in layers}, key=list(anatomy.by_name).index))


def _make_probe(
    settings: ProbeSettings,
    anatomy: Anatomy,
    also: dict[str, Group],
    pairs: tuple[list[Pair], list[Pair]],
    compute: Compute,
) -> tuple[list[str], Probe]:
    """Choose the candidates and make the probe, with the backbone cut at them and at the layers to compare.

    Groups to compare that need weights which the file lacks are taken out of `also`.
    """
    spec, backbone = anatomy.spec, settings.backbone
    network = spec.build()
    weights = load_weights(spec, network, backbone.weights)
    if weights.source is None and backbone.weights != "none":
        raise UserError(
            f"There are no pretrained weights for {spec.name}, and layers of random weights tell little of what it can "
            "learn. Give a file (backbone.weights=PATH); backbone.weights=none probes random weights all the same."
        )
    if backbone.output_stride:
        set_output_stride(network, backbone.output_stride, spec.name)
    names = candidates(anatomy, network, settings.layers, weights.missing)
    if settings.layers is None and len(names) == MOST_CANDIDATES:
        say(f"{len(names)} layers in regular distances are probed; layers=[re:.*] takes all.")
    able = {layer.name for layer in pretrained(anatomy, weights.missing)}
    for name in [name for name, group in also.items() if not able.issuperset(group)]:
        say(f"{name} ({' + '.join(also.pop(name))}): not measured, for the weights file lacks some of its weights.")
    order = list(anatomy.by_name)
    cuts = sorted({*names, *(name for group in also.values() for name in group)}, key=order.index)
    trunk = cut(network, {name: name for name in cuts}, spec)[0]
    trunk = trunk.eval().requires_grad_(False).to(compute.device).to(memory_format=torch.channels_last)
    training, validation = (build_dataset(each, settings.data, None, settings.seed) for each in pairs)
    train = settings.train
    return names, Probe(
        trunk,
        torch.tensor(spec.mean),
        torch.tensor(spec.std),
        compute,
        training,
        validation,
        train.batch_size,
        train.workers,
        settings.pixels,
        settings.ridge,
        settings.seed,
        known(train.empty),
    )


def _report(
    settings: ProbeSettings, anatomy: Anatomy, found: Findings, also: Mapping[str, Group], folder: Path
) -> None:
    """Write what was found, and show it."""
    notes: dict[Group, str] = {}
    for name, group in [("recommended", found.best), *also.items()]:
        notes[group] = f"{notes[group]}, {name}" if group in notes else name
    rows = [finding(group, dice, anatomy, notes.get(group, "")) for group, dice in found.dices.items()]
    write_csv(folder / "probe.csv", rows)
    keep_settings(folder, asdict(settings))
    title = f"{anatomy.spec.name}: what its layers tell about {Path(settings.data.root).name}"
    draw_probe(folder / "probe.png", anatomy, found.at_step(0), found.at_step(-1), found.best, title)
    print_table(_alone(anatomy, found))
    print_table(*_together(settings, anatomy, found, notes))
    overrides = " ".join(f"taps.{role}={name}" for role, name in zip(settings.taps, found.best, strict=True))
    say(
        f"Recommended for {settings.decoder.name}: {' + '.join(found.best)}, Dice {found.dices[found.best]:.4f} by a "
        f"linear classifier; a trained decoder makes more of it. As settings:\n  {overrides}\n"
        f"probe.csv, probe.png and config.yaml are in {folder}."
    )


def _alone(anatomy: Anatomy, found: Findings) -> Table:
    table = Table(title="each layer alone")
    table.add_column("layer")
    for heading in ("stride", "channels", "sees", "Dice", "multiply-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, dice in found.at_step(0).items():
        facts, cost = finding((name,), dice, anatomy), anatomy.by_name[name].macs / anatomy.macs
        style = "bold magenta" if name in found.best else ""
        cells = (facts["layers"], facts["stride"], facts["channels"], facts["receptive_field"])
        table.add_row(*cells, f"{dice:.4f}", f"{cost:.0%}", style=style)
    return table


def _together(
    settings: ProbeSettings, anatomy: Anatomy, found: Findings, notes: Mapping[Group, str]
) -> tuple[Table, Table]:
    """Show the best groups, and those that were asked for, with what the whole model would cost.

    In the second table the layers of a group stand under each other.
    """
    wide, narrow = Table(), compact_table(leading=1)
    for table, cost in ((wide, "the model's multiply-adds"), (narrow, "multiply-\nadds")):
        table.title = "layers together"
        table.add_column("layers")
        for heading in ("stride", "channels", "sees", "Dice", cost):
            table.add_column(heading, justify="right" if heading in ("Dice", cost) else "left", no_wrap=True)
        table.add_column()
    last = sorted(found.steps[-1].values(), key=lambda group: -found.dices[group])[:8]
    for group in sorted({*last, *notes}, key=lambda group: -found.dices[group]):
        facts = finding(group, found.dices[group], anatomy, notes.get(group, ""))
        cells = (facts["layers"], facts["stride"], facts["channels"], facts["receptive_field"])
        others = (f"{facts['dice']:.4f}", _cost(settings, anatomy, group), facts["note"])
        style = "bold magenta" if group == found.best else ""
        wide.add_row(*cells, *others, style=style)
        narrow.add_row(*(cell.replace(" + ", "\n") for cell in cells), *others, style=style)
    return wide, narrow


def _cost(settings: Settings, anatomy: Anatomy, group: Group) -> str:
    """Count the multiply-adds of a model with these taps, for a picture; none where they do not fit the decoder."""
    layers = [anatomy.by_name[name] for name in group]
    try:
        roles = dict(zip(DECODERS[settings.decoder.name].roles, layers, strict=True))  # type: ignore[attr-defined]
        with torch.device("meta"):
            channels, strides = ({role: getattr(layer, fact) for role, layer in roles.items()} for fact in _FACTS)
            decoder = DECODERS[settings.decoder.name](channels, strides, settings.decoder)
            features = {role: torch.empty(1, n.channels, n.height, n.width) for role, n in roles.items()}
            fields = Fields(*features.values())
            dry_run(decoder, features, fields)
    except (UserError, ValueError):
        return ""
    return f"{(anatomy.macs_of(group) + fields.macs) / 1e9:.2f} G"


_FACTS = ("channels", "stride")
