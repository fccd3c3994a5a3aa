"""What is exported against PyTorch: by onnxruntime, and as a loaded program."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

import segtune
from segtune.__main__ import main
from segtune.cli.help import config_folder
from segtune.commands import export as command_module
from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings, FCN8sSettings
from segtune.config.parse import parse
from segtune.config.schema import Settings
from segtune.errors import UserError
from segtune.inference import export
from segtune.inference.export import TOLERANCE, Deployed, trace, write_onnx, write_program
from segtune.inference.onnx_model import load_onnx
from segtune.models.build import BuiltModel, build_model
from segtune.models.checkpoint import Checkpoint
from segtune.models.progress import State

PAIRS = [f"{b}_{d}" for b in ("vgg16", "resnet50", "xception") for d in ("fcn8s", "deeplabv3plus")]
QUICK = "vgg16_fcn8s"
SHAPES = [(1, 64, 96), (1, 97, 131), (3, 33, 47), (1, 32, 32), (2, 160, 75)]
DESCRIPTION = {"size": "[64, 96]", "threshold": "0.25", "settings": '{"seed": 7}', "taps": '{"low": "layer1"}'}


def images_of(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    areas = F.interpolate(torch.rand(count, 3, 4, 4, generator=generator), (height, width), mode="bicubic")
    return (255 * areas + 20 * torch.randn(areas.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def lively(model: nn.Module) -> Deployed:
    """Rescale the last layers, so that probabilities are spread: a random network's are all alike, or all 0 or 1."""
    decoder: Any = model.eval().decoder
    last = [decoder.classifier] if hasattr(decoder, "classifier") else [decoder.score_high, decoder.score_pool4]
    last += [decoder.score_pool3] if len(last) > 1 else []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for layer in last:
            nn.init.normal_(layer.weight, 0, layer.in_channels**-0.5)
            layer.bias.zero_()
        logit = model(images_of(2, 97, 131))
        for layer in last:
            layer.weight.mul_(2 / logit.std())
        last[-1].bias[-1] = -2 * logit.mean() / logit.std()
    return Deployed(model)


def exported(network: Deployed, folder: Path) -> dict[str, Callable[[Tensor], Tensor]]:
    """Export in both formats; the ONNX file is run with onnxruntime alone."""
    program = trace(network)
    write_onnx(program, folder / "model.onnx", DESCRIPTION)
    write_program(program, folder / "model.pt2", DESCRIPTION)
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.pt2"]
    onnx.checker.check_model(onnx.load(folder / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return {
        "onnx": lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0]),
        "torch": program_of(folder / "model.pt2"),
    }


def program_of(path: Path) -> Callable[[Tensor], Tensor]:
    """Load a program with PyTorch alone."""
    files = dict.fromkeys(DESCRIPTION, "")
    program = torch.export.load(path, extra_files=files)
    assert files == DESCRIPTION
    return program.module()


@torch.inference_mode()
def assert_same(network: Deployed, networks: dict[str, Callable[[Tensor], Tensor]]) -> None:
    worst, seen = dict.fromkeys(networks, 0.0), []
    for shape in SHAPES:
        images = images_of(*shape)
        expected = network(images)
        assert expected.shape == (shape[0], 1, *shape[1:])
        seen.append(expected.flatten())
        for name, other in networks.items():
            found = other(images)
            assert found.dtype == torch.float32
            assert found.shape == expected.shape
            worst[name] = max(worst[name], (found - expected).abs().max().item())
    logging.getLogger(__name__).info("largest deviations: %s", worst)
    spread = torch.cat(seen)
    assert spread.std() > 0.1
    assert ((spread > 0.05) & (spread < 0.95)).float().mean() > 0.3
    assert max(worst.values()) <= TOLERANCE
    network.model.mean += 0.25  # type: ignore[operator]  # a quarter of a grey level more, and the comparison sees it
    assert all((network(images) - other(images)).abs().max() > TOLERANCE for other in networks.values())


@pytest.mark.slow  # the command's test is the quick one
@pytest.mark.parametrize("pair", PAIRS)
def test_an_exported_pair_gives_what_pytorch_gives(
    built_of: Callable[[str], BuiltModel], tmp_path: Path, pair: str
) -> None:
    network = lively(built_of(pair).model)
    assert_same(network, exported(network, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [FCN8sSettings(outputs=2), DeepLabV3PlusSettings(channels=16, outputs=2)])
@pytest.mark.parametrize("backbone", ["resnet50", "xception"])
def test_two_outputs_a_finer_stride_and_stopped_gradients(tmp_path: Path, backbone: str, decoder: Any) -> None:
    torch.manual_seed(0)
    settings = BackboneSettings(backbone, weights="none", output_stride=8)
    layers = {"resnet50": ("layer1", "layer3", "layer4"), "xception": ("block1", "block11", "block12")}[backbone]
    roles = ("pool3", "pool4", "high") if decoder.name == "fcn8s" else ("low", "high")
    taps, first = dict(zip(roles, (*layers[: len(roles) - 1], layers[-1]), strict=True)), layers[0]
    network = lively(build_model(settings, taps, decoder, [first, "decoder"]).model)
    assert_same(network, exported(network, tmp_path))


def test_deployed_is_the_models_probability(built_of: Callable[[str], BuiltModel]) -> None:
    model = built_of(QUICK).model.train()
    network, images = Deployed(model), images_of(2, 40, 50)
    assert not any(module.training for module in network.modules())
    assert torch.equal(network(images), torch.sigmoid(model(images)))
    assert not network(images).requires_grad


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a checkpoint of a small network as training writes it."""
    chosen = ["backbone=resnet50", "backbone.weights=none", "decoder.channels=16", "taps.low=act1", "taps.high=layer1"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=[*chosen, "data.eval_size=[96,64]", "train.threshold=0.4"])
    settings = parse(Settings, OmegaConf.to_container(config, resolve=True))
    torch.manual_seed(0)
    built = build_model(settings.backbone, settings.taps, settings.decoder)
    lively(built.model)
    path = tmp_path_factory.mktemp("run") / "best.pt"
    row = {"phase": "head", "train_loss": 1.0, "val_loss": 1.0}
    rows = [row | {"epoch": number, "val_dice": dice} for number, dice in ((1, 0.5), (2, 0.75))]
    state = State(epoch=2, best_epoch=2, rows=rows, phases={"head": {"trainable": 1}})
    Checkpoint.of(built, settings, state).save(path)
    return path


def command(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """Run `export` in this process; return what it printed, or the error, after checking the exit code."""
    found = main(["export", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert found == code, out + err
    assert "Traceback" not in out + err
    assert "Warning" not in out + err
    return err.strip() if code else out


@pytest.mark.slow
def test_the_command_writes_onnx(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = command(capsys, f"checkpoint={trained}", f"output={tmp_path / 'new' / 'm.onnx'}")
    assert os.listdir(tmp_path / "new") == ["m.onnx"]
    lines = out.splitlines()
    assert lines[0] == "exporting resnet50 + deeplabv3plus …"
    for line, shape in zip(lines[1:4], ("1 x 3 x 96 x 64", "1 x 3 x 97 x 131", "2 x 3 x 64 x 160"), strict=True):
        assert line.startswith(f"  {shape}: largest deviation from PyTorch ")
    assert lines[4].startswith(f"Wrote {tmp_path / 'new' / 'm.onnx'} (")
    assert len(lines) == 5

    network, found = load_onnx(tmp_path / "new" / "m.onnx")
    content = torch.load(trained)
    assert found == {"size": [96, 64], "threshold": 0.4, "settings": content["settings"], "taps": content["taps"]}
    images = images_of(3, 41, 50)
    expected = Deployed(Checkpoint.load(trained).rebuild().model)(images)
    for given in (images, images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)):
        probability = network(given)
        assert probability.dtype == torch.float32
        torch.testing.assert_close(probability, expected, rtol=0, atol=TOLERANCE)

    proto = onnx.load(tmp_path / "new" / "m.onnx")
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["segtune"] == segtune.__version__
    assert metadata["val_dice"] == "0.75"
    for value, shape in ((proto.graph.input[0], [3]), (proto.graph.output[0], [1])):
        dims = value.type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", *shape, "height", "width"]
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert not any(node.metadata_props for node in proto.graph.node)
    _run_the_page(tmp_path / "new" / "m.onnx", tmp_path, expected_of=lambda images: network(images))


def _run_the_page(file: Path, folder: Path, expected_of: Callable[[Tensor], Tensor]) -> None:
    """Run the page's program on a photo, in a process of its own, and compare its mask."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    photo = images_of(1, 150, 120)
    cv2.imwrite(str(folder / "photo.png"), photo[0].permute(1, 2, 0).numpy()[..., ::-1])
    (folder / "best.onnx").write_bytes(file.read_bytes())
    code = code.replace("photo.jpg", "photo.png") + "\nimport sys\nassert not {'torch', 'segtune'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=120)
    mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_UNCHANGED)
    seen = F.interpolate(photo.float(), (96, 64), mode="bilinear", antialias=True).round().to(torch.uint8)
    expected = F.interpolate(expected_of(seen), (150, 120), mode="bilinear")[0, 0].numpy() > 0.4
    assert mask.shape == (150, 120)
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask > 0) == expected).mean() > 0.99  # Pillow resizes a little differently


@pytest.mark.slow
def test_the_command_writes_a_torch_program(trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(trained.read_bytes())
    out = command(capsys, f"checkpoint={path}", "format=torch")
    assert out.count("largest deviation from PyTorch 0.0e+00") == 3
    assert sorted(os.listdir(tmp_path)) == ["best.pt", "best.pt2"]
    files = dict.fromkeys(("settings", "taps", "size", "threshold", "segtune", "val_dice"), "")
    network = torch.export.load(tmp_path / "best.pt2", extra_files=files).module()
    content, images = torch.load(trained), images_of(2, 45, 67)
    assert json.loads(files["settings"]) == content["settings"]
    assert json.loads(files["taps"]) == content["taps"]
    assert json.loads(files["size"]) == [96, 64]
    assert (files["threshold"], files["segtune"], files["val_dice"]) == ("0.4", segtune.__version__, "0.75")
    expected = Deployed(Checkpoint.load(trained).rebuild().model)(images)
    torch.testing.assert_close(network(images), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_a_network_that_asks_for_its_sizes(tmp_path: Path) -> None:
    """Its poolings round up: whether the last window is whole, PyTorch must ask while it traces."""
    taps, decoder = {"low": "auto", "high": "auto"}, DeepLabV3PlusSettings(channels=16)
    torch.manual_seed(0)
    network = lively(build_model(BackboneSettings("resnet10t", weights="none"), taps, decoder).model)
    assert_same(network, exported(network, tmp_path))


@pytest.mark.parametrize("error", [1.2e-4, float("nan")])
def test_a_deviation_fails_and_leaves_what_was_there(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    made: list[Deployed] = []

    def deployed(model: nn.Module) -> Deployed:
        made.append(Deployed(model))
        return made[-1]

    def shifted(images: Tensor) -> Tensor:
        found = made[0](images)
        found[0, 0, 3, 5] += error
        return found

    monkeypatch.setattr(command_module, "Deployed", deployed)
    monkeypatch.setattr(command_module, "trace", lambda network: network)
    monkeypatch.setattr(command_module, "write_program", lambda program, path, description: path.write_text("after"))
    monkeypatch.setattr(command_module, "load_program", lambda path: shifted)
    target = tmp_path / "m"
    target.write_text("before")
    _assert_deviates(capsys, target, f"checkpoint={trained}", "format=torch")
    if error > 0:
        error = 0.8e-4
        command(capsys, f"checkpoint={trained}", "format=torch", f"output={target}", "overwrite=true")
        assert target.read_text() == "after"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_another_normalisation_is_a_deviation(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def wrong(network: Deployed) -> Any:
        program = trace(network)
        program.state_dict["model.mean"] = program.state_dict["model.mean"] + 1
        return program

    monkeypatch.setattr(command_module, "trace", wrong)
    target = tmp_path / "m"
    target.write_text("before")
    _assert_deviates(capsys, target, f"checkpoint={trained}", f"format={kind}")


def _assert_deviates(capsys: pytest.CaptureFixture[str], target: Path, *arguments: str) -> None:
    error = command(capsys, *arguments, f"output={target}", "overwrite=true", code=1)
    assert error.startswith("segtune export: On 1 x 3 x 96 x 64 the exported program deviates from PyTorch by up to ")
    assert error.endswith("more than 0.0001. The file was removed. Try the other format: format=onnx or format=torch.")
    assert target.read_text() == "before"
    assert os.listdir(target.parent) == [target.name]


def test_what_cannot_be_traced_is_one_message(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(torch.export, "export", fail)
    error = command(capsys, f"checkpoint={trained}", f"output={tmp_path / 'm.onnx'}", code=1)
    assert error == (
        f"segtune export: PyTorch {torch.__version__} cannot export this model: RuntimeError: no such operator\n"
        "Try another version of PyTorch, or the other format (format=onnx, format=torch)."
    )
    assert not os.listdir(tmp_path)


def test_users_errors(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.onnx"
    there.write_text("before")
    given = f"checkpoint={trained}"
    assert command(capsys, given, f"output={there}", code=2) == (
        f"segtune export: {there} already exists. Set another output=… or overwrite=true."
    )
    assert command(capsys, given, f"output={trained}", "overwrite=true", code=2) == (
        f"segtune export: output={trained} is the checkpoint itself; expected the file to write, such as best.onnx."
    )
    assert command(capsys, given, f"output={tmp_path}", code=2) == (
        f"segtune export: output={tmp_path} is a folder; expected the file to write, such as best.onnx."
    )
    assert command(capsys, f"checkpoint={tmp_path / 'none.pt'}", code=2).startswith("segtune export: No checkpoint at ")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert command(capsys, given, f"output={tmp_path / 'm.onnx'}", code=2) == (
        "segtune export: Not installed: onnxscript. Install with: pip install 'segtune[export]'"
    )
    assert os.listdir(tmp_path) == ["there.onnx"]
    assert there.read_text() == "before"


def test_a_model_too_large_for_a_file(
    built_of: Callable[[str], BuiltModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LARGEST", 1000)
    network = Deployed(built_of(QUICK).model)

    class Program:
        state_dict = network.state_dict()

    with pytest.raises(UserError, match=r"^The model has 0\.\d GB of weights, but an ONNX file holds at most 2 GB\."):
        write_onnx(Program(), tmp_path / "m.onnx", {})  # type: ignore[arg-type]
