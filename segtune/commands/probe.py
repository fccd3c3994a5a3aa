"""The command `probe`: score each layer with a linear classifier, and recommend a tap map."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from rich.table import Table

from segtune.config.command_settings import ProbeSettings
from segtune.config.data_settings import AugmentSettings, DataSettings
from segtune.data.dataset import SegmentationDataset, build_dataset
from segtune.data.sources.base import Pair
from segtune.data.splits import build_splits, look_for_data
from segtune.errors import UserError
from segtune.models.decoders.registry import DECODERS
from segtune.models.forward_cost import model_macs
from segtune.models.layer_info import BackboneSummary, Group
from segtune.models.pretrained import load_weights
from segtune.models.tapped import TappedBackbone, build_tapped
from segtune.models.taps import cut
from segtune.probing.probe import Probe
from segtune.probing.tap_search import MOST_CANDIDATES, Findings, candidates, pretrained, search
from segtune.probing.tap_search import row as finding
from segtune.reporting.probe_plot import draw_probe
from segtune.runtime.console import bar, compact_table, counting, print_table, say, set_up_logging
from segtune.runtime.cores import worker_count
from segtune.runtime.device import Device, resolve_device
from segtune.runtime.files import write_csv
from segtune.runtime.memory import memory_advice
from segtune.runtime.paths import refuse_data_folder
from segtune.runtime.sampling import evenly_spaced
from segtune.training.run_folder import write_settings


def probe(settings: ProbeSettings, folder: Path) -> Findings:
    """Score each layer by a linear classifier on the user's masks, and recommend a tap map.

    Writes `probe.csv`, `probe.png` and `config.yaml` to the folder.

    Raises:
        UserError: Data, weights or layers cannot be used.
    """
    set_up_logging()
    torch.manual_seed(settings.seed)
    if settings.restore.checkpoint:
        raise UserError("restore.checkpoint is not supported for probe. Set backbone.weights, which it measures.")
    refuse_data_folder(folder, settings.data.root)
    settings = replace(settings, data=look_for_data(settings.data, settings.seed, settings.train.workers))
    compute = resolve_device(settings.train)
    data, augment = _images(settings)
    size = data.evaluation_size
    tapped = build_tapped(settings, size)
    tapped.check_size(size)
    summary = tapped.summary
    also = {"current taps": tuple(tapped.nodes.values())}
    also |= {name: _group(layers, summary) for name, layers in settings.compare.items()}
    with counting("preparing the data") as progress:
        splits = build_splits(settings.data, settings.seed, settings.train.workers, progress)
    wanted = {"train": settings.train_images, "val": settings.val_images}
    # Evenly spaced, so that all parts of a sorted split are represented.
    train, val = (evenly_spaced(splits[name], most or len(splits[name])) for name, most in wanted.items())
    _check_counts(train, val)
    seen = partial(build_dataset, data=data, augment=augment, seed=settings.seed, by_content=True)
    names, job = _make_probe(settings, tapped, also, (seen(train), seen(val)), compute)
    roles = len(DECODERS[settings.decoder.name].roles)
    say(
        f"{summary.spec.name} on {compute}: {len(names)} candidates, each with a linear classifier fitted on "
        f"{len(train)} training images of {size[0]} x {size[1]} pixels and scored on {len(val)} validation images"
        f"{', all as crops of this size (augment.crop)' * bool(augment)}"
    )
    with bar(f"probing {len(names)} layers", roles * job.images) as show:
        done = [0]

        def advance(images: int) -> None:
            done[0] += images
            show(done[0], "images")

        job.advance = advance
        with memory_advice(settings.train, size, compute, "fewer candidates (layers=…)"):
            found = search(job, names, roles, list(also.values()), summary)
    _report(settings, summary, found, also, folder)
    return found


def _images(settings: ProbeSettings) -> tuple[DataSettings, AugmentSettings | None]:
    """Return how images are seen: whole and resized, or where training sees them at their own size as a crop each."""
    data = replace(settings.data, eval_tile=None)
    if not settings.augment.at_own_scale:
        return data, None
    return replace(data, eval_size=None), AugmentSettings(settings.augment.crop)


def _check_counts(train: list[Pair], val: list[Pair]) -> None:
    if len(train) < 5 or not val:
        raise UserError(
            f"Too few images: got {len(train)} for training and {len(val)} for validation; expected at least 5 and 1, "
            "better 50 or more of each."
        )
    if len(val) < 5:
        say(f"Only {len(val)} validation images: small differences mean little. A larger data.val_share gives more.")


def _group(layers: list[str], summary: BackboneSummary) -> Group:
    return tuple(sorted({summary.find(name).name for name in layers}, key=list(summary.by_name).index))


def _make_probe(
    settings: ProbeSettings,
    tapped: TappedBackbone,
    also: dict[str, Group],
    datasets: tuple[SegmentationDataset, SegmentationDataset],
    compute: Device,
) -> tuple[list[str], Probe]:
    """Return the candidates and the probe, whose backbone is cut at them and at the layers to compare.

    Removes groups from `also` that need weights missing in the file.
    """
    network, summary = tapped.network, tapped.summary
    spec, wanted = summary.spec, settings.backbone.weights
    weights = load_weights(spec, network, wanted)
    if weights.trouble:
        raise UserError(f"backbone.weights={wanted}: {weights.trouble} A probe of them says little.")
    names = candidates(summary, network, settings.layers, weights.missing)
    if settings.layers is None and len(names) == MOST_CANDIDATES:
        say(f"{len(names)} evenly spaced layers are probed; layers=[re:.*] probes all.")
    able = {layer.name for layer in pretrained(summary, weights.missing)}
    for name in [name for name, group in also.items() if not able.issuperset(group)]:
        say(f"{name} ({' + '.join(also.pop(name))}): not measured: the weights file lacks some of its weights.")
    order = list(summary.by_name)
    cuts = sorted({*names, *(name for group in also.values() for name in group)}, key=order.index)
    nodes = {name: name for name in cuts}
    trunk = cut(network, nodes, spec, found=nodes)[0]
    trunk = compute.place(trunk.eval().requires_grad_(False))
    train = settings.train
    return names, Probe(
        trunk,
        torch.tensor(spec.mean),
        torch.tensor(spec.std),
        compute,
        *datasets,
        train.images_per_batch,
        worker_count(train.workers, compute.device),
        settings.pixels,
        settings.ridge,
        settings.seed,
        train.empty,
    )


def _report(
    settings: ProbeSettings, summary: BackboneSummary, found: Findings, also: Mapping[str, Group], folder: Path
) -> None:
    """Write and show the results."""
    notes: dict[Group, str] = {}
    for name, group in [("recommended", found.best), *also.items()]:
        notes[group] = f"{notes[group]}, {name}" if group in notes else name
    rows = [finding(group, dice, summary, notes.get(group, "")) for group, dice in found.dices.items()]
    write_csv(folder / "probe.csv", rows)
    write_settings(folder, asdict(settings))
    title = f"{summary.spec.name}: its layers, scored on {Path(settings.data.root).name}"
    draw_probe(folder / "probe.png", summary, found.at_step(0), found.at_step(-1), found.best, title)
    print_table(_single_layers(summary, found))
    print_table(*_groups(settings, summary, found, notes))
    overrides = " ".join(f"taps.{role}={name}" for role, name in zip(settings.taps, found.best, strict=True))
    say(
        f"Recommended for {settings.decoder.name}: {' + '.join(found.best)}, Dice {found.dices[found.best]:.4f} with a "
        f"linear classifier; a trained decoder reaches more. As settings:\n  {overrides}\n"
        f"Wrote probe.csv, probe.png and config.yaml to {folder}."
    )


def _single_layers(summary: BackboneSummary, found: Findings) -> Table:
    table = Table(title="each layer alone")
    table.add_column("layer")
    for heading in ("stride", "channels", "receptive\nfield", "Dice", "multiply-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, dice in found.at_step(0).items():
        facts, cost = finding((name,), dice, summary), summary.by_name[name].macs / summary.macs
        style = "bold magenta" if name in found.best else ""
        cells = (facts["layers"], facts["stride"], facts["channels"], facts["receptive_field"])
        table.add_row(*cells, f"{dice:.4f}", f"{cost:.0%}", style=style)
    return table


def _groups(
    settings: ProbeSettings, summary: BackboneSummary, found: Findings, notes: Mapping[Group, str]
) -> tuple[Table, Table]:
    """Return the best groups and those asked for, with the cost of the whole model, as a wide and a narrow table.

    In the narrow one the layers of a group stand below each other.
    """
    wide, narrow = Table(), compact_table(leading=1)
    for table, of_cost in ((wide, "the model's multiply-adds"), (narrow, "multiply-\nadds")):
        table.title = "layers together"
        table.add_column("layers")
        for heading in ("stride", "channels", "receptive\nfield", "Dice", of_cost):
            table.add_column(heading, justify="right" if heading in ("Dice", of_cost) else "left", no_wrap=True)
        table.add_column()
    last = sorted(found.steps[-1].values(), key=lambda group: -found.dices[group])[:8]
    for group in sorted(dict.fromkeys([*last, *notes]), key=lambda group: -found.dices[group]):
        facts = finding(group, found.dices[group], summary, notes.get(group, ""))
        cells = (facts["layers"], facts["stride"], facts["channels"], facts["receptive_field"])
        macs = model_macs(summary, group, settings.decoder)
        cost = "" if macs is None else f"{macs / 1e9:.2f} G"
        others = (f"{facts['dice']:.4f}", cost, facts["note"])
        style = "bold magenta" if group == found.best else ""
        wide.add_row(*cells, *others, style=style)
        narrow.add_row(*(cell.replace(" + ", "\n") for cell in cells), *others, style=style)
    return wide, narrow
