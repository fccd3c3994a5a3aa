"""The commands that help to choose layers: `taps` and `probe`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from rich.table import Table

from segtune.config.command_settings import ProbeSettings
from segtune.data.dataset import build_dataset
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
from segtune.runtime.device import Device, resolve_device
from segtune.runtime.files import write_csv
from segtune.runtime.sampling import evenly_spaced
from segtune.training.run_folder import write_settings


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
    compute = resolve_device(settings.train)
    size = settings.data.evaluation_size
    tapped = build_tapped(settings, size)
    tapped.check_size(size)
    anatomy = tapped.anatomy
    also = {"current taps": tuple(tapped.nodes.values())}
    also |= {name: _group(layers, anatomy) for name, layers in settings.compare.items()}
    with counting("preparing the data") as progress:
        splits = build_splits(settings.data, settings.seed, settings.train.workers, progress)
    wanted = {"train": settings.train_images, "val": settings.val_images}
    # At regular distances, so that all parts of a sorted split are there.
    train, val = (evenly_spaced(splits[name], most or len(splits[name])) for name, most in wanted.items())
    _check_pictures(train, val)
    names, job = _make_probe(settings, tapped, also, (train, val), compute)
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


def _group(layers: list[str], anatomy: BackboneSummary) -> Group:
    return tuple(sorted({anatomy.find(name).name for name in layers}, key=list(anatomy.by_name).index))


def _make_probe(
    settings: ProbeSettings,
    tapped: TappedBackbone,
    also: dict[str, Group],
    pairs: tuple[list[Pair], list[Pair]],
    compute: Device,
) -> tuple[list[str], Probe]:
    """Choose the candidates and make the probe, with the backbone cut at them and at the layers to compare.

    Groups to compare that need weights which the file lacks are taken out of `also`.
    """
    network, anatomy = tapped.network, tapped.anatomy
    spec, wanted = anatomy.spec, settings.backbone.weights
    weights = load_weights(spec, network, wanted)
    if weights.source is None and wanted != "none":
        raise UserError(
            f"There are no pretrained weights for {spec.name}, and layers of random weights tell little of what it can "
            "learn. Give a file (backbone.weights=PATH); backbone.weights=none probes random weights all the same."
        )
    names = candidates(anatomy, network, settings.layers, weights.missing)
    if settings.layers is None and len(names) == MOST_CANDIDATES:
        say(f"{len(names)} layers in regular distances are probed; layers=[re:.*] takes all.")
    able = {layer.name for layer in pretrained(anatomy, weights.missing)}
    for name in [name for name, group in also.items() if not able.issuperset(group)]:
        say(f"{name} ({' + '.join(also.pop(name))}): not measured, for the weights file lacks some of its weights.")
    order = list(anatomy.by_name)
    cuts = sorted({*names, *(name for group in also.values() for name in group)}, key=order.index)
    nodes = {name: name for name in cuts}
    trunk = cut(network, nodes, spec, found=nodes)[0]
    trunk = compute.place(trunk.eval().requires_grad_(False))
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
        train.empty,
    )


def _report(
    settings: ProbeSettings, anatomy: BackboneSummary, found: Findings, also: Mapping[str, Group], folder: Path
) -> None:
    """Write what was found, and show it."""
    notes: dict[Group, str] = {}
    for name, group in [("recommended", found.best), *also.items()]:
        notes[group] = f"{notes[group]}, {name}" if group in notes else name
    rows = [finding(group, dice, anatomy, notes.get(group, "")) for group, dice in found.dices.items()]
    write_csv(folder / "probe.csv", rows)
    write_settings(folder, asdict(settings))
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


def _alone(anatomy: BackboneSummary, found: Findings) -> Table:
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
    settings: ProbeSettings, anatomy: BackboneSummary, found: Findings, notes: Mapping[Group, str]
) -> tuple[Table, Table]:
    """Show the best groups, and those that were asked for, with what the whole model would cost.

    In the second table the layers of a group stand under each other.
    """
    wide, narrow = Table(), compact_table(leading=1)
    for table, of_cost in ((wide, "the model's multiply-adds"), (narrow, "multiply-\nadds")):
        table.title = "layers together"
        table.add_column("layers")
        for heading in ("stride", "channels", "sees", "Dice", of_cost):
            table.add_column(heading, justify="right" if heading in ("Dice", of_cost) else "left", no_wrap=True)
        table.add_column()
    last = sorted(found.steps[-1].values(), key=lambda group: -found.dices[group])[:8]
    for group in sorted(dict.fromkeys([*last, *notes]), key=lambda group: -found.dices[group]):
        facts = finding(group, found.dices[group], anatomy, notes.get(group, ""))
        cells = (facts["layers"], facts["stride"], facts["channels"], facts["receptive_field"])
        macs = model_macs(anatomy, group, settings.decoder)
        cost = "" if macs is None else f"{macs / 1e9:.2f} G"
        others = (f"{facts['dice']:.4f}", cost, facts["note"])
        style = "bold magenta" if group == found.best else ""
        wide.add_row(*cells, *others, style=style)
        narrow.add_row(*(cell.replace(" + ", "\n") for cell in cells), *others, style=style)
    return wide, narrow
