"""Every command and block of code that the documents show is run, in a smaller form, so that none can rot.

The commands run in a folder that holds what the documents name: images in `DIR`, a run in `runs/NAME`, and so on.
`ENTRIES` says for each what is made smaller, or why it is not run. The slow tests run them.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

import segtune
from segtune.__main__ import main
from segtune.config.parse import parse
from segtune.config.training_settings import FreezeSettings
from segtune.data.sources import portraits
from segtune.models.backbones.registry import BACKBONES
from segtune.runtime.sweep_files import SweepJob, SweepRecord, write_sweep

REPOSITORY = Path(segtune.__file__).parents[1]
GUIDES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
DOCUMENTS = [*GUIDES, REPOSITORY / "CONTRIBUTING.md"]  # test_contributing.py follows the blocks of the last one
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"python3? (-m|tools/)|segtune \w+ \S+=|(make|pip|torchrun|tensorboard) \S|\.ci/")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [block for name, block in FENCED.findall(text) if name == language]


def commands(text: str) -> list[str]:
    """Return all commands: the lines of `sh` blocks, without comments, and those between backticks in the text."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    found = [re.sub(r"(^|\s+)#.*", "", line) for line in lines] + [each for each in inline if PROGRAM.match(each)]
    return [" ".join(each.split()) for each in found if each.strip()]


COMMANDS = sorted({command for document in DOCUMENTS for command in commands(document.read_text(encoding="utf-8"))})

TRAIN = "data.image_size=64 data.limit=2 train.batch_size=2 train.samples=1 train.precision=fp32"
XCEPTION = f"{TRAIN} backbone.weights=xception.safetensors"
RANDOM = f"{TRAIN} backbone.weights=none"
SHORT = "freeze=head_only freeze.phases.head.epochs=1"
TWO = "freeze.phases.head.epochs=1 freeze.phases.all.epochs=1"
PLAN = "data.image_size=64 train.batch_size=2 backbone.weights=xception.safetensors"
TAPS = "data.image_size=64 measure=false"
PROBE = f"{PLAN} train.workers=0 train_images=5 val_images=2 'layers=[block3.add,block8.add]'"
PROGRESSIVE = " ".join(f"freeze.phases.{name}.epochs=1" for name in ("head", "deep1", "deep2", "deep3", "all"))
MINE = "freeze.phases.head.epochs=1 freeze.phases.deep.epochs=1"


@dataclass(frozen=True)
class Run:
    """A command is run: with `more` settings, and other words in the place of some."""

    more: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tool:
    """A command of `tools/`: a test of `test_tools.py` runs its smallest form."""

    test: str


@dataclass(frozen=True)
class NotRun:
    """A command is not run."""

    why: str


INSTALLS = NotRun("installs packages; CI does it in a fresh environment")
CI_RUNS = NotRun("CI runs it")
FIRST = NotRun("takes minutes; it runs experiment=first, which stands below")

ENTRIES: dict[str, Run | Tool | NotRun] = {
    "make install": INSTALLS,
    "make train": FIRST,
    "make train ARGS='decoder=fcn8s'": FIRST,
    "make test": CI_RUNS,
    "make test-slow": CI_RUNS,
    "make test-trains": CI_RUNS,
    "make test-gpu": NotRun("needs a GPU"),
    "make lint": CI_RUNS,
    ".ci/run": CI_RUNS,
    "python3 -m venv .venv": INSTALLS,
    ". .venv/bin/activate": INSTALLS,
    "pip install .": INSTALLS,
    "pip install 'segtune[export]'": INSTALLS,
    "pip install 'segtune[heif]'": INSTALLS,
    "pip install 'segtune[joblib]'": INSTALLS,
    "pip install 'segtune[optuna]'": INSTALLS,
    "pip install 'segtune[submitit]'": INSTALLS,
    "pip install 'segtune[mlflow,wandb]'": INSTALLS,
    "pip wheel --no-deps .": NotRun("test_wheel.py builds the wheel"),
    "tensorboard --logdir runs": NotRun("serves until it is stopped"),
    "pip install -e '.[bench]'": INSTALLS,
    "python tools/benchmark.py --only sizes": Tool("test_benchmark_runs_in_its_small_form"),
    "python tools/benchmark.py --only sizes --sizes 256 --steps 4 --rounds 1 --batch N": Tool(
        "test_benchmark_runs_in_its_small_form"
    ),
    "SEGTUNE_SHARED=../shared python tools/benchmark.py --only steps peers sizes start --json figures.json": Tool(
        "test_benchmark_runs_in_its_small_form"
    ),
    "SEGTUNE_SHARED=../shared python tools/benchmark.py --only sweep loader dice --json long.json": Tool(
        "test_benchmark_runs_in_its_small_form"
    ),
    "SEGTUNE_SHARED=../shared python tools/gpu_check.py --workers 2 16 --json figures.json": Tool(
        "test_gpu_check_runs_on_a_cpu_too"
    ),
    "python tools/old_values.py runs/last_layer": Tool("test_old_values_finds_frozen_what_is_frozen"),
    "python tools/compare_runs.py A B": Tool("test_compare_runs_finds_one_bit"),
    "python tools/fault.py --signal KILL": Tool("test_fault_with_one_kill"),
    "python tools/fault.py --signal TERM": Tool("test_fault_with_one_kill"),
    "python tools/rank_taps.py --folder runs/rank -- backbone=xception "
    "backbone.weights=../shared/weights/xception.safetensors data=folder data.root=../shared/data/skin_ecu "
    "data.image_size=256": Tool("test_rank_taps_with_two_maps"),
    "python -m segtune": Run(),
    "python -m segtune train -m seed=0,1,2,3 hydra/launcher=joblib hydra.launcher.n_jobs=4": NotRun(
        "tests/cli/test_real_sweeps.py runs such sweeps where the extra is installed"
    ),
    **dict.fromkeys(
        (
            "python -m segtune train sweep=rates",
            "python -m segtune train -m hydra/sweeper=optuna 'lr=tag(log, interval(1e-4, 1e-2))' optimizer=adamw,sgd "
            "hydra.sweeper.n_trials=30",
            "python -m segtune train sweep=rates run_dir=sweeps/search hydra.sweeper.n_trials=40 resume=auto",
            "python -m segtune train sweep=rates '~freeze.phases.head' "
            "restore.checkpoint=runs/head/checkpoints/last.pt",
            "python -m segtune train -m sweep=rates",
        ),
        NotRun("tests/cli/test_search.py runs such searches where the extra is installed"),
    ),
    "torchrun --nproc-per-node 4 -m segtune train data=folder data.root=DIR train.batch_size=32": Run(
        f"{XCEPTION} {SHORT} data.limit=4 train.batch_size=4", {"4": "2"}
    ),
    "torchrun … -m segtune train resume=RUN": Run(),
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint FIRST_HOST:29500 -m segtune train …": (
        NotRun("needs two machines")
    ),
    'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)': NotRun("needs Slurm"),
    'srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 4 --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d '
    '--rdzv-endpoint "$first:29500" -m segtune train data=folder data.root=/shared/photos '
    "run_dir=/shared/runs/one": Run(
        f"{XCEPTION} {SHORT}",
        {"data.root=/shared/photos": "data.root=DIR", "run_dir=/shared/runs/one": "run_dir=runs/one"},
    ),
}

#: The same for commands that begin with `python -m segtune`.
SEGTUNE: dict[str, Run] = {
    "--help": Run(),
    "COMMAND --help": Run(instead={"COMMAND": "predict"}),
    "train --help": Run(),
    "train --hydra-help": Run(),
    "train … --cfg job": Run(),
    "train experiment=first": Run(f"{RANDOM} freeze.phases.all.epochs=1"),
    "train experiment=first run_dir=runs/first": Run(f"{RANDOM} freeze.phases.all.epochs=1"),
    "train experiment=first restore.checkpoint=runs/first data.invert=true data.skin=false "
    "freeze.phases.all.backbone=0 'freeze.phases.all.decoder=[classifier]' freeze.phases.all.epochs=2 "
    "run_dir=runs/last_layer": Run(
        TRAIN, {"experiment=first": "freeze=none", "restore.checkpoint=runs/first": "restore.checkpoint=runs/NAME"}
    ),
    "train data.root=DIR data.foreground=[15] data.ignore=255": Run(
        f"{XCEPTION} {SHORT}", {"data.foreground=[15]": "data.foreground=[255]", "data.ignore=255": "data.ignore=7"}
    ),
    "train data.root=DIR 'data.ignore=[255,#e0e0c0]'": Run(
        f"{XCEPTION} {SHORT}", {"data.ignore=[255,#e0e0c0]": "data.ignore=[7,#e0e0c0]"}
    ),
    "train augment=medium augment.border=void": Run(f"{XCEPTION} {SHORT}"),
    "train optimizer=rmsprop_tf optimizer.decay_epochs=4 lr=0.01": Run(f"{XCEPTION} {TWO}"),
    "train optimizer=sgd optimizer.schedule=multistep freeze.phases.head.milestones=[3] "
    "freeze.phases.all.milestones=[8,11]": Run(f"{XCEPTION} {TWO}"),
    "train optimizer.schedule=poly optimizer.end_factor=0.01 optimizer.warmup=100": Run(
        f"{XCEPTION} {TWO}", {"optimizer.warmup=100": "optimizer.warmup=1"}
    ),
    "train backbone=xception decoder=deeplabv3plus data=folder data.root=DIR run_dir=runs/slim "
    "restore.checkpoint=runs/OLD 'restore.exclude=[decoder.classifier]' freeze=none "
    "'freeze.phases.all.backbone=[block7,block8]' "
    "'freeze.phases.all.decoder=[classifier]' freeze.phases.all.epochs=null freeze.phases.all.steps=3000 "
    "freeze.phases.all.lr=0.01 train.batch_size=32 optimizer=rmsprop_tf optimizer.weight_decay=4e-5 "
    "optimizer.schedule=exponential optimizer.gamma=0.94 optimizer.decay_epochs=2 checkpoint.minutes=10 "
    "train.log_every=10 train.log_seconds=600": Run(
        TRAIN, {"freeze.phases.all.steps=3000": "freeze.phases.all.steps=3"}
    ),
    "train --config-dir myconf experiment=pipeline": Run(f"{TRAIN} freeze.phases.all.steps=2 optimizer.warmup=1"),
    "train backbone=xception decoder=deeplabv3plus data=folder data.root=DIR run_dir=runs/keras freeze=two_phase "
    "freeze.phases.head.epochs=10 freeze.phases.head.optimizer=rmsprop freeze.phases.head.lr=1e-3 "
    "\"freeze.phases.all.backbone=['60:']\" freeze.phases.all.batchnorm=frozen freeze.phases.all.epochs=10 "
    "freeze.phases.all.optimizer=sgd freeze.phases.all.lr=1e-4 freeze.phases.all.backbone_lr_scale=1 augment=none "
    "'+augment.transforms.Affine={shear: [-10, 10], scale: [0.8, 1.2], p: 1}' "
    "'+augment.transforms.HorizontalFlip={p: 0.5}'": Run(f"{XCEPTION} {TWO}"),
    "train backbone=xception": Run(f"{XCEPTION} {SHORT}"),
    "train backbone=xception decoder=deeplabv3plus": Run(f"{XCEPTION} {SHORT}"),
    "train backbone=xception decoder=deeplabv3plus data=folder data.root=DIR": Run(f"{XCEPTION} {SHORT}"),
    "train data=folder data.root=DIR augment=crops data.image_size=512 data.eval_tile=1024": Run(
        f"{XCEPTION} {SHORT}", {"data.image_size=512": "", "data.eval_tile=1024": "data.eval_tile=128"}
    ),
    "train data=folder data.root=DIR augment=crops augment.crop.object_fraction=0.5 augment.crop.per_image=20": Run(
        f"{XCEPTION} {SHORT}", {"augment.crop.per_image=20": "augment.crop.per_image=2"}
    ),
    "train data=folder data.root=DIR": Run(f"{XCEPTION} {SHORT}"),
    "train backbone=vgg16 decoder=fcn8s": Run(f"{RANDOM} {SHORT} freeze.phases.head.lr=1e-5"),
    "train backbone=vgg16 decoder=fcn8s freeze=staged": Run(f"{RANDOM} epochs=1 lr=1e-5"),
    "train experiment=fcn_paper data.root=DIR": Run(f"{RANDOM} freeze.phases.all.epochs=1"),
    "train backbone=vgg16 decoder=fcn8s freeze=none": Run(f"{RANDOM} epochs=1 lr=1e-5"),
    "train backbone=vgg16 decoder=fcn8s taps.high=block5_pool": Run(f"{RANDOM} {SHORT} freeze.phases.head.lr=1e-5"),
    "train backbone=resnet50 taps.low=conv3_block4_out": Run(f"{RANDOM} {SHORT}"),
    "train backbone=timm backbone.name=convnext_tiny": Run(f"{RANDOM} {SHORT}"),
    "train backbone=timm backbone.name=mobilenetv3_large_100 decoder=fcn8s": Run(f"{RANDOM} {SHORT}"),
    "train taps.low=block3_sepconv2_act seed=1": Run(f"{XCEPTION} {SHORT}"),
    "train data.image_size=[192,256]": Run(f"{XCEPTION} {SHORT}", {"data.image_size=64": ""}),
    "train freeze=progressive": Run(f"{XCEPTION} {PROGRESSIVE}"),
    "train freeze=progressive augment=medium": Run(f"{XCEPTION} {PROGRESSIVE}"),
    "train freeze=none freeze.phases.all.stop_gradient=block5": Run(f"{XCEPTION} freeze.phases.all.epochs=1"),
    "train freeze=none \"freeze.phases.all.freeze=[':60']\"": Run(f"{XCEPTION} freeze.phases.all.epochs=1"),
    "train \"freeze.phases.all.freeze=[decoder.aspp,'re:block[12]']\"": Run(f"{XCEPTION} {TWO}"),
    "train freeze=head_only \"freeze.phases.head.backbone=[block8,'re:block7\\.rep\\..*']\"": Run(
        f"{XCEPTION} freeze.phases.head.epochs=1"
    ),
    "train freeze.phases.head.epochs=2 freeze.phases.head.until=plateau": Run(f"{XCEPTION} freeze.phases.all.epochs=1"),
    "train '~freeze.phases.head'": Run(f"{XCEPTION} freeze.phases.all.epochs=1"),
    "train '+freeze.phases.late={backbone: all, epochs: 2, lr: 1e-5}'": Run(f"{XCEPTION} {TWO}"),
    "train '+augment.transforms.GaussNoise={p: 0.2}'": Run(f"{XCEPTION} {SHORT}"),
    "train augment=medium augment.transforms.HorizontalFlip.p=0 '+augment.transforms.GaussNoise={p: 0.2}'": (
        Run(f"{XCEPTION} {SHORT}")
    ),
    "train augment.crop=null '~augment.transforms.RandomBrightnessContrast'": Run(f"{XCEPTION} {SHORT}"),
    "train --config-dir myconf backbone=xception taps=early freeze=deep": Run(f"{XCEPTION} {MINE}"),
    "train --config-dir myconf experiment=hands seed=4": Run(f"{XCEPTION} {MINE}"),
    "train -m backbone=vgg16,xception seed=0,1,2": Run(
        f"{RANDOM} {SHORT}", {"backbone=vgg16,xception": "backbone=xception", "seed=0,1,2": "seed=0,1"}
    ),
    "train -m backbone=vgg16,resnet50,xception decoder=fcn8s,deeplabv3plus": Run(
        f"{RANDOM} {SHORT}", {"backbone=vgg16,resnet50,xception": "backbone=resnet50"}
    ),
    "train -m seed=0,1 lr=1e-3,1e-4 run_dir=sweeps/rates resume=auto": Run(
        f"{XCEPTION} {SHORT}", {"seed=0,1": "seed=0"}
    ),
    "train -m seed=0,1,2 lr=3e-4,1e-3,1e-4 run_dir=sweeps/rates resume=auto": Run(
        f"{XCEPTION} {SHORT}", {"seed=0,1,2": "seed=0", "lr=3e-4,1e-3,1e-4": "lr=3e-4,1e-3"}
    ),
    "train resume=multirun/DATE_TIME": Run(),
    "train -m experiment=first epochs=5 lr=3e-4,3e-3,3e-2 loss=dice,bce seed=0,1": Run(
        TRAIN,
        {"epochs=5": "epochs=1", "lr=3e-4,3e-3,3e-2": "lr=3e-4,3e-3", "loss=dice,bce": "loss=bce", "seed=0,1": ""},
    ),
    "train freeze=head_only run_dir=runs/head": Run(f"{XCEPTION} freeze.phases.head.epochs=1"),
    "train restore.checkpoint=runs/NAME/checkpoints/best.pt": Run(f"{TRAIN} {SHORT}"),
    "train restore.checkpoint=runs/OLD/checkpoints/best.pt decoder=fcn8s restore.scope=backbone": (
        Run(f"{TRAIN} {SHORT}")
    ),
    "train resume=runs/NAME": Run(),
    "train repeat=runs/NAME": Run(),
    "train repeat=runs/NAME seed=1": Run(),
    "train repeat=multirun/DATE_TIME/0 seed=1": Run(),
    "train 'train.trackers=[mlflow,wandb]'": Run(
        f"{RANDOM} {SHORT}", {"train.trackers=[mlflow,wandb]": "train.trackers=[]"}
    ),
    "train resume=runs/NAME freeze.phases.all.epochs=20": Run(
        instead={"freeze.phases.all.epochs=20": "freeze.phases.all.epochs=2"}
    ),
    "plan": Run(PLAN),
    "plan freeze=progressive": Run(PLAN),
    "plan measure=true": Run(PLAN),
    "plan freeze=head_only data.image_size=256 measure=true": Run(PLAN),
    "plan backbone=xception freeze=progressive data.image_size=256": Run(PLAN),
    "plan summary=true": Run(PLAN),
    "plan picture=model.png": Run(PLAN),
    "plan backbone=xception summary=true": Run(PLAN),
    "plan backbone=xception picture=model.svg": Run(PLAN),
    "plan backbone=xception details=true": Run(PLAN),
    "taps": Run(TAPS),
    "taps details=true": Run(TAPS),
    "taps backbone=resnet50": Run(TAPS),
    "taps backbone=timm backbone.name=convnext_tiny": Run(TAPS),
    "taps backbone=xception data.image_size=256": Run(TAPS),
    "taps backbone=xception details=true": Run(TAPS),
    "taps backbone=xception format=csv > layers.csv": Run(TAPS),
    "taps backbone=xception picture=xception.png": Run(TAPS),
    "probe": Run(PROBE),
    "probe data=folder data.root=DIR": Run(PROBE),
    "probe backbone=xception data=folder data.root=DIR": Run(PROBE),
    "check data=folder data.root=DIR": Run(),
    "evaluate checkpoint=multirun/DATE_TIME/6/checkpoints/best.pt data.split=test": Run(
        "data=folder data.root=DIR",
        {"checkpoint=multirun/DATE_TIME/6/checkpoints/best.pt": "checkpoint=A/checkpoints/best.pt"},
    ),
    "evaluate checkpoint=runs/slim": Run(instead={"checkpoint=runs/slim": "checkpoint=runs/NAME"}),
    "evaluate checkpoint=RUN/checkpoints/best.pt data=folder data.root=DIR": Run(),
    "evaluate checkpoint=runs/NAME/checkpoints/best.pt data=folder data.root=DIR data.split=test": Run(),
    "evaluate checkpoint=runs/NAME/checkpoints/best.pt data=folder data.root=DIR tile=512 overlap=0.5": Run(),
    "evaluate checkpoint='[A/checkpoints/best.pt,B/checkpoints/best.pt]' data=folder data.root=DIR": Run(),
    "report folder=multirun/DATE_TIME": Run(),
    "cache": Run(),
    "cache clear=true days=30": Run(),
    "predict checkpoint=runs/NAME/checkpoints/best.pt input=photos output=predictions": Run(),
    "predict checkpoint=runs/NAME/checkpoints/best.pt input=photos clean.fill_holes=true clean.min_area=200": Run(
        "overwrite=true"
    ),
    "predict checkpoint=runs/NAME/checkpoints/best.pt input=photos format=labelme category=skin": Run("overwrite=true"),
    "export checkpoint=runs/NAME/checkpoints/best.pt": Run(),
    "export checkpoint=runs/NAME/checkpoints/best.pt format=torch": Run(),
    "export": Run("--help"),
}
ENTRIES["python -m segtune train backbone=resnet50 decoder=lraspp"] = NotRun("test_contributing.py adds this decoder")
ENTRIES |= {f"python -m segtune {command}": run for command, run in SEGTUNE.items()}

#: The files that a command leaves, unless it only shows something.
LEAVES = {
    "train": ("**/summary.json",),
    "evaluate": ("runs/*_evaluate/evaluation.json",),
    "check": ("runs/*_check/*.png",),
    "probe": ("runs/*_probe_*/probe.csv",),
    "report": ("multirun/DATE_TIME/report.html",),
    "predict": ("predictions/masks/**/*.png", "predictions/labelme/**/*.json"),
    "export": ("**/*.onnx", "**/*.pt2"),
}
HELP = re.compile("--help|--hydra-help|--cfg")

#: What the Python blocks leave, in a file or under a name.
PYTHON = {
    ("README.md", 0): ("mask", "probability"),
    ("docs/export.md", 0): ("mask.png",),
    ("docs/export.md", 1): ("probability",),
    ("docs/predict.md", 0): ("mask", "probability"),
}


def python_blocks() -> dict[tuple[str, int], str]:
    return {
        (str(document.relative_to(REPOSITORY)), number): block
        for document in GUIDES
        for number, block in enumerate(blocks(document.read_text(encoding="utf-8"), "python"))
    }


def yaml_blocks() -> list[str]:
    return [block for document in GUIDES for block in blocks(document.read_text(encoding="utf-8"), "yaml")]


def test_links_have_a_target() -> None:
    anchors = {}
    for document in DOCUMENTS:
        titles = re.findall(r"^#+ (.*)", FENCED.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
        anchors[document] = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", document.read_text(encoding="utf-8"))):
            if not link.startswith("http"):
                name, _, anchor = link.partition("#")
                target = (document.parent / name).resolve() if name else document
                assert target.exists(), f"{document.name}: {link}"
                assert not anchor or anchor in anchors[target], f"{document.name}: {link}"


def test_commands_are_found() -> None:
    text = "`make it`, `x=1`\n```sh\n# none\na b  c   # why\nd \\\n    e '#f'\n```\n```yaml\ng: h\n```\n`pip i`"
    assert commands(text) == ["a b c", "d e '#f'", "make it", "pip i"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_an_entry(command: str) -> None:
    assert command in ENTRIES


def test_each_entry_has_a_command() -> None:
    assert [command for command in ENTRIES if command not in COMMANDS] == []
    assert python_blocks().keys() == PYTHON.keys()


def test_each_entry_of_a_tool_names_its_test() -> None:
    tree = ast.parse((REPOSITORY / "tests" / "test_tools.py").read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {entry.test for entry in ENTRIES.values() if isinstance(entry, Tool)} <= tests


def draw(folder: Path, images: str, number: int) -> None:
    generator = np.random.default_rng(0)
    for name in (images, "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(number):
        mask = np.zeros((60 + i, 90 - i), np.uint8)
        cv2.circle(mask, (20 + 2 * i, 30), 10 + i % 9, 255, -1)
        image = generator.integers(0, 120, (*mask.shape, 3)).astype(np.uint8) + (mask > 0)[..., None] * np.uint8(100)
        cv2.imwrite(str(folder / images / f"{i:02d}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{i:02d}.png"), mask)


def create_narrow(architecture: str, **options: Any) -> torch.nn.Module:
    """Create a timm network; VGG16's fully connected layers with 32 channels."""
    return ORIGINAL_CREATE(architecture, **options, **({"mlp_ratio": 32 / 4096} if architecture == "vgg16" else {}))


ORIGINAL_CREATE = timm.create_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in a folder that holds all that the documents name; the built-in data and VGG16's layers are smaller."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HYDRA_FULL_ERROR", "0")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setattr(portraits, "SPLITS", {"train": 6, "val": 3, "test": 3})
        patch.setattr(timm, "create_model", create_narrow)
        draw(folder / "DIR", "images", 20)
        draw(folder / "photos" / "hands", "images", 10)
        shutil.copy(folder / "DIR" / "images" / "00.png", folder / "photo.jpg")
        torch.manual_seed(0)
        save_file(BACKBONES["xception"].build().state_dict(), folder / "xception.safetensors")
        for block in yaml_blocks():
            if path := re.search(r"^# (myconf/\S+\.yaml)", block, re.MULTILINE):
                Path(path[1]).parent.mkdir(parents=True, exist_ok=True)
                Path(path[1]).write_text(block, encoding="utf-8")
        run = f"{XCEPTION} {TWO} data=folder data.root=DIR train.device=cpu train.workers=0 run_dir=runs/NAME"
        assert main(["train", *shlex.split(run)]) == 0
        for other in ("runs/OLD", "A", "B", "RUN", "multirun/DATE_TIME/0", "multirun/DATE_TIME/1"):
            shutil.copytree("runs/NAME", other)
        jobs = tuple(SweepJob(number, str(number), (*shlex.split(run)[:-1], f"seed={number}")) for number in range(3))
        write_sweep(folder / "multirun" / "DATE_TIME", SweepRecord("python -m segtune train -m seed=0,1", jobs))
        assert main(["export", "checkpoint=A/checkpoints/best.pt", "output=best.onnx"]) == 0
        assert main(["export", "checkpoint=A/checkpoints/best.pt", "output=best.pt2", "format=torch"]) == 0
        yield folder


def arguments(command: str, entry: Run) -> list[str]:
    """Return the words of a command's smaller form."""
    words = [word for word in shlex.split(f"{command} {entry.more}") if word != "…"]
    if "train" in words and not {"--help", "--hydra-help"} & set(words) and "resume=" not in command:
        words += ["train.device=cpu", "train.workers=0"]
    return [entry.instead.get(word, word) for word in words if entry.instead.get(word, word)]


def written(place: Path, name: str) -> dict[Path, int]:
    """Return the files that a command may have left, with their times."""
    return {file: file.stat().st_mtime_ns for pattern in LEAVES.get(name, ()) for file in place.glob(pattern)}


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command, entry in ENTRIES.items() if isinstance(entry, Run)])
def test_a_command_of_the_documents(place: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    entry = ENTRIES[command]
    assert isinstance(entry, Run)
    program, _, target = command.partition(" > ")
    words = arguments(program, entry)
    name = "" if HELP.search(" ".join(words)) else [*words, "", ""][words.index("segtune") + 1]
    before = written(place, name)
    if words[0] == "torchrun" and "…" not in command:
        several = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        done = subprocess.run(several, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        code = main(words[words.index("segtune") + 1 :])
        out, err = capsys.readouterr()
        assert code == 0, out + err
        assert out
        if target:
            Path(target).write_text(out, encoding="utf-8")
            assert len({line.count(",") for line in out.splitlines()}) == 1
    new = [file for file, when in written(place, name).items() if before.get(file) != when]
    assert new or name not in LEAVES, f"nothing new of {LEAVES[name]}"
    if name == "train" and "resume=" not in program:  # checkpoints are large
        for file in new:
            shutil.rmtree(file.parent)
    if picture := re.search(r"picture=(\S+)", program):
        assert Path(picture[1]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("where", PYTHON, ids=lambda where: f"{where[0]}-{where[1]}")
def test_a_python_block_of_the_documents(place: Path, where: tuple[str, int]) -> None:
    names: dict[str, Any] = {}
    exec(compile(python_blocks()[where], where[0], "exec"), names)
    for name in PYTHON[where]:
        assert name in names or (place / name).is_file()
    if "mask" in names:
        assert names["mask"].shape == names["probability"].shape == (60, 90)


def test_yaml_blocks_are_settings() -> None:
    """Those with a file's name are written there, and the commands beside them use them."""
    named = [block for block in yaml_blocks() if "# myconf/" in block]
    for block in yaml_blocks():
        content = yaml.safe_load(block)
        assert isinstance(content, dict)
        if block not in named:
            parse(FreezeSettings, content)
    assert len(named) == 4
