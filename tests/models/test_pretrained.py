"""Weights against files, damaged ones too, and servers of this machine."""

import logging
import os
import pickle
import socket
import threading
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

import segtune.models.pretrained
from segtune.config.model_settings import RestoreSettings
from segtune.errors import UserError
from segtune.models.backbones.registry import BACKBONES
from segtune.models.backbones.spec import BackboneSpec
from segtune.models.build import BuiltModel
from segtune.models.pretrained import LoadedWeights, find_pretrained, home_of, load_weights
from segtune.models.restore import restore
from segtune.models.state_dicts import read_state_dict
from tests.conftest import slow

TINY = BackboneSpec(
    name="tiny",
    build=lambda: nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 2, 3), bn=nn.BatchNorm2d(2), fc=nn.Conv2d(2, 4, 2, bias=False))
    ),
    architecture="tiny_architecture",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    blocks={"all": ("conv", "bn", "fc")},
    renames={"classifier.0.": "fc."},
)


def tiny_state(seed: int = 1) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=rng) if value.is_floating_point() else value
        for name, value in TINY.build().state_dict().items()
    }


def holds(network: nn.Module, state: dict[str, Tensor]) -> bool:
    own = network.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items())


def error_of(function: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        function()
    return str(caught.value)


def test_none_leaves_the_network_as_it_is() -> None:
    network = TINY.build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert load_weights(TINY, network, "none") == LoadedWeights(None, (), ())
    assert holds(network, before)


def write_safetensors(path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_pth(path: Path, state: Any) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "write",
    [
        write_safetensors,
        write_pth,
        lambda path, state: write_safetensors(path, prefixed(state)),
        lambda path, state: write_pth(path, {"state_dict": state, "epoch": 3}),
        lambda path, state: write_pth(path, {"model": prefixed(state)}),
        lambda path, state: write_pth(
            path, {name: nn.Parameter(value, value.is_floating_point()) for name, value in state.items()}
        ),
    ],
    ids=["safetensors", "pth", "module.safetensors", "state_dict", "model and module.", "parameters"],
)
def test_files_in_every_usual_form(write: Callable[[Path, dict[str, Tensor]], Path], tmp_path: Path) -> None:
    network, state = TINY.build(), tiny_state()
    path = write(tmp_path / "weights", state)
    assert load_weights(TINY, network, str(path)) == LoadedWeights(str(path), (), ())
    assert holds(network, state)


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "model.", "model.encoder.", "_orig_mod.net."])
def test_a_prefix_of_the_backbones_names_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    network, state = TINY.build(), tiny_state()
    state["classifier.0.weight"] = state.pop("fc.weight").reshape(4, 8)  # renamed, and fully connected, too
    content = {prefix + name: value for name, value in state.items()} | {"head.weight": torch.ones(4)}
    path = write_pth(tmp_path / "w", {"model_state_dict": content, "epoch": 3})
    with caplog.at_level(logging.INFO):
        assert load_weights(TINY, network, str(path)) == LoadedWeights(str(path), (), ())
    ours = prefix.removeprefix("_orig_mod.")
    assert caplog.messages[-2:] == [
        f"{path}: took the {len(state)} tensors whose names begin with {ours}, without it.",
        f"{path}: took classifier.0 (4, 8) as fc (4, 2, 2, 2).",
    ]
    assert torch.equal(network.state_dict()["conv.weight"], state["conv.weight"])


def test_prefixes_that_fit_equally_well_are_refused_with_the_settings_that_choose(tmp_path: Path) -> None:
    state = tiny_state()
    path = write_pth(tmp_path / "w", {f"{each}.{name}": value for each in "qk" for name, value in state.items()})
    assert error_of(lambda: load_weights(TINY, TINY.build(), str(path))) == (
        f"backbone.weights={path}: the tensors of q., k. fit tiny equally well. Name one: backbone.weights=auto "
        f"restore.checkpoint={path} restore.scope=backbone '+restore.rename={{q.:backbone.}}'"
    )


def test_home_directory_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pth(tmp_path / "w", tiny_state())
    assert load_weights(TINY, TINY.build(), "~/w.pth").source == str(tmp_path / "w.pth")


def test_missing_and_unused_tensors_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, state = TINY.build(), tiny_state()
    fresh = network.state_dict()["fc.weight"].clone()
    del state["fc.weight"], state["bn.num_batches_tracked"]  # old files have no count, and nothing is amiss
    path = write_pth(tmp_path / "w", state | {"head.weight": torch.ones(1), "head.bias": torch.ones(1)})
    with caplog.at_level(logging.INFO):
        loaded = load_weights(TINY, network, str(path))
    assert loaded == LoadedWeights(str(path), ("fc.weight",), ("head.weight", "head.bias"))
    assert caplog.messages == [f"Weights not used from {path}: head.weight, head.bias"]
    assert holds(network, state | {"fc.weight": fresh})


def test_fully_connected_layer_becomes_the_convolution_over_its_whole_input(tmp_path: Path) -> None:
    network, state = TINY.build(), tiny_state()
    linear = nn.Linear(8, 4, bias=False)
    del state["fc.weight"]
    path = write_pth(tmp_path / "w", state | {"classifier.0.weight": linear.weight.detach()})
    assert load_weights(TINY, network, str(path)).missing == ()
    x = torch.rand(3, 2, 2, 2)
    torch.testing.assert_close(network.get_submodule("fc")(x).flatten(1), linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("names", "as_kernels"),
    [
        (("classifier.0", "classifier.3"), False),  # torchvision
        slow(("classifier.0", "classifier.3"), True),
        (("pre_logits.fc1", "pre_logits.fc2"), True),  # timm
        slow(("pre_logits.fc1", "pre_logits.fc2"), False),
    ],
)
def test_a_classifier_computes_the_same_at_the_centre_of_vgg16(
    names: tuple[str, str],
    as_kernels: bool,
    network_of: Callable[[str], nn.Module],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = network_of("vgg16")
    hidden = nn.Sequential(nn.Linear(25088, 32), nn.ReLU(), nn.Linear(32, 4096), nn.ReLU())
    state = {f"features.{name}": value for name, value in network.get_submodule("features").state_dict().items()}
    state |= {"classifier.6.weight": torch.ones(10, 4096), "classifier.6.bias": torch.ones(10)}
    for name, layer, shape in zip(names, (hidden[0], hidden[2]), ((32, 512, 7, 7), (4096, 32, 1, 1)), strict=True):
        weight = layer.get_parameter("weight").detach()
        state |= {
            f"{name}.weight": weight.reshape(shape) if as_kernels else weight,
            f"{name}.bias": layer.bias.detach(),
        }
    path = write_pth(tmp_path / "w", state)

    with caplog.at_level(logging.INFO):
        loaded = load_weights(BACKBONES["vgg16"], network, str(path))
    assert loaded == LoadedWeights(str(path), (), ("classifier.6.weight", "classifier.6.bias"))
    first, second = ("(32, 512, 7, 7)", "(4096, 32, 1, 1)") if as_kernels else ("(32, 25088)", "(4096, 32)")
    assert caplog.messages[0] == (
        f"{path}: took {names[0]} {first} as fc6 (32, 512, 7, 7), {names[1]} {second} as fc7 (4096, 32, 1, 1)."
    )
    with torch.no_grad():
        photo = torch.rand(1, 3, 224, 224)
        pool5 = network.get_submodule("features")(photo)
        expected = hidden(pool5.flatten(1))
        network.set_submodule("features", nn.Identity())
        convolved = network(pool5)
    assert pool5.shape == (1, 512, 7, 7)
    assert convolved.shape == (1, 4096, 7, 7)
    assert expected.std() > 0
    torch.testing.assert_close(
        convolved[:, :, 3, 3], expected, rtol=1e-4, atol=1e-5
    )  # 25,088 products in another order


def test_one_of_two_fully_connected_layers_fills_one(network_of: Callable[[str], nn.Module], tmp_path: Path) -> None:
    network = network_of("vgg16")
    state = {name: value for name, value in network.state_dict().items() if name.startswith("features.")}
    first = {"classifier.0.weight": torch.ones(32, 25088), "classifier.0.bias": torch.ones(32)}
    loaded = load_weights(BACKBONES["vgg16"], network, str(write_pth(tmp_path / "w", state | first)))
    assert loaded.missing == ("fc7.weight", "fc7.bias")
    assert network.get_parameter("fc6.weight").eq(1).all()


@pytest.mark.parametrize("shape", [slow((64, 25088)), (32, 512), slow((25088, 32))])  # wider, of 32 px, transposed
def test_a_fully_connected_layer_of_another_shape_is_refused_with_what_to_do(
    shape: tuple[int, int],
    network_of: Callable[[str], nn.Module],
    built_of: Callable[[str], BuiltModel],
    tmp_path: Path,
) -> None:
    network = network_of("vgg16")
    state = {name: value for name, value in network.state_dict().items() if name.startswith("features.")}
    path = write_pth(tmp_path / "w", state | {"classifier.0.weight": torch.ones(shape)})
    assert error_of(lambda: load_weights(BACKBONES["vgg16"], network, str(path))) == (
        f"The weights in {path} do not fit vgg16: 27 tensors match by name, "
        "3 are missing (fc6.bias, fc7.weight, fc7.bias), 0 are unexpected (none)."
        f"\n  shape mismatch: fc6.weight: got {shape} from the file; expected (32, 512, 7, 7)"
        f"\nTo take what fits, and leave the rest new: backbone.weights=auto restore.checkpoint={path} "
        "restore.scope=backbone"
    )
    model = built_of("vgg16_fcn8s").model
    report = restore(model, RestoreSettings(str(path), scope="backbone"), "vgg16")
    assert report.missing == tuple(f"backbone.fc{n}.{part}" for n in (6, 7) for part in ("weight", "bias"))


def test_weights_of_another_shape(tmp_path: Path) -> None:
    path = write_pth(
        tmp_path / "w", tiny_state() | {"conv.weight": torch.ones(2, 1, 3, 3), "fc.weight": torch.ones(4, 7)}
    )
    assert error_of(lambda: load_weights(TINY, TINY.build(), str(path))) == (
        f"The weights in {path} do not fit tiny: 8 tensors match by name, "
        "0 are missing (none), 0 are unexpected (none)."
        "\n  shape mismatch: conv.weight: got (2, 1, 3, 3) from the file; expected (2, 3, 3, 3)"
        "\n  shape mismatch: fc.weight: got (4, 7) from the file; expected (4, 2, 2, 2)"
        f"\nTo take what fits, and leave the rest new: backbone.weights=auto restore.checkpoint={path} "
        "restore.scope=backbone"
    )


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = write_pth(
        tmp_path / "w", {f"stage{n}.weight": torch.ones(1) for n in range(8)} | {"conv.bias": torch.ones(2)}
    )
    network = TINY.build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert error_of(lambda: load_weights(TINY, network, str(path))) == (
        f"The weights in {path} do not fit tiny: 1 tensors match by name, "
        "6 are missing (conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var, fc.weight), "
        "8 are unexpected (stage0.weight, stage1.weight, stage2.weight, "
        "stage3.weight, stage4.weight, stage5.weight and 2 more)."
    )
    assert holds(network, before)


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "none.pth"
    assert error_of(lambda: load_weights(TINY, TINY.build(), str(path))) == (
        f"No weights file at {path}. Expected a .safetensors, .pth or .pt file."
    )


def test_a_misspelt_choice_of_weights() -> None:
    assert error_of(lambda: load_weights(TINY, TINY.build(), "imagnet")) == (
        "backbone.weights=imagnet is neither a file nor one of auto, imagenet, none. Did you mean imagenet?"
    )


def damaged(path: Path, reason: str) -> str:
    return (
        f"Cannot read the weights file {path}: it is damaged, or holds more than tensors ({reason}).\n"
        "Expected a .safetensors file, or a .pth or .pt file of tensors by name."
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02a", "IndexError"),
        (b"\x80\x02G", "error"),
    ],
)
def test_garbage_file(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert error_of(lambda: read_state_dict(path)) == damaged(path, reason)


def test_garbage_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\xff\0\0\0\0\0\0\0{garbage")
    assert error_of(lambda: read_state_dict(path)) == damaged(
        path, "Error while deserializing header: invalid header length"
    )


def test_file_cut_short_or_with_flipped_bits_is_refused(tmp_path: Path) -> None:
    whole = write_pth(tmp_path / "whole", tiny_state()).read_bytes()
    path = tmp_path / "w.pth"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"it is (damaged, or holds more than tensors|empty|cut off)"):
            read_state_dict(path)
    rng = torch.Generator().manual_seed(0)
    for position in torch.randint(len(whole), (200,), generator=rng).tolist():
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            read_state_dict(path)  # the bits of a tensor's values cannot be told from right ones
        except UserError:
            continue


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_file_is_not_run(write: Callable[[Any, Path], object], tmp_path: Path) -> None:
    path, target = tmp_path / "w.pth", tmp_path / "executed"
    write({"weight": torch.ones(1), "evil": Payload(target)}, path)
    assert error_of(lambda: load_weights(TINY, TINY.build(), str(path))) == (
        f"Cannot read the weights file {path}: it would run commands when loaded (posix.mkdir). Nothing was run. "
        "Do not load it elsewhere.\nExpected a .safetensors file, or a .pth or .pt file of tensors by name."
    )
    assert not target.exists()
    if write is torch.save:  # the payload is a real one
        torch.load(path, weights_only=False)
        assert target.exists()


@pytest.mark.parametrize(
    ("content", "inside"),
    [
        ([1, 2], "a list"),
        ({"epoch": 3, "args": "x"}, "epoch, args"),
        (torch.ones(2), "a Tensor"),
        ({"state_dict": {"a": "text"}}, "state_dict"),
        ({}, "none"),
    ],
)
def test_file_without_a_dictionary_of_tensors(content: Any, inside: str, tmp_path: Path) -> None:
    path = write_pth(tmp_path / "w", content)
    assert error_of(lambda: read_state_dict(path)) == (
        f"{path} is not a weights file: it holds {inside}. "
        "Expected a dictionary of tensors by name, such as a state_dict."
    )


# --- weights by download, from servers of this machine ---


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Accept connections; answer each with these bytes, or never."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer is not None:

            def reply() -> None:
                with server.accept()[0] as connection:
                    connection.recv(4096)
                    connection.sendall(answer)

            threading.Thread(target=reply, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/tiny.pth"


Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Let timm name a URL or a repository as the home of the weights, and start from empty caches."""
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def set_config(url: str | None = None, hf_hub_id: str | None = None) -> None:
        config = SimpleNamespace(url=url, hf_hub_id=hf_hub_id, tag="tag")
        monkeypatch.setattr(segtune.models.pretrained, "get_pretrained_cfg", lambda architecture: config)

    return set_config


@pytest.mark.parametrize("weights", ["auto", "imagenet"])
def test_weights_are_downloaded_once(weights: str, publish: Publish, tmp_path: Path) -> None:
    state = tiny_state()
    write_pth(tmp_path / "tiny", state)
    cached = str(tmp_path / "torch" / "hub" / "checkpoints" / "tiny.pth")
    with serving(tmp_path) as url:
        publish(f"{url}/tiny.pth")
        network = TINY.build()
        assert load_weights(TINY, network, weights) == LoadedWeights(cached)
        assert holds(network, state)
    network = TINY.build()
    assert load_weights(TINY, network, weights) == LoadedWeights(cached)  # the server is gone
    assert holds(network, state)


def test_imagenet_out_of_reach_is_an_error(publish: Publish, tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        publish(f"{url}/none.pth")
        assert error_of(lambda: load_weights(TINY, TINY.build(), "imagenet")) == (
            "backbone.weights=imagenet: no ImageNet weights for tiny: not in the local cache, "
            f"and {url}/none.pth cannot be reached (File not found).\n"
            "Give a file of them: backbone.weights=PATH (.safetensors, .pth or .pt). "
            f"Or put the file of {url}/none.pth into {tmp_path / 'torch' / 'hub' / 'checkpoints'}. "
            "backbone.weights=none means random weights, on purpose."
        )


def test_auto_out_of_reach_stays_random_and_says_why(publish: Publish, tmp_path: Path) -> None:
    network = TINY.build()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with serving(tmp_path) as url:
        publish(f"{url}/none.pth")
        loaded = load_weights(TINY, network, "auto")
    assert holds(network, before)
    assert loaded.source is None
    assert loaded.trouble.startswith(
        f"no ImageNet weights for tiny: not in the local cache, and {url}/none.pth cannot be reached (File not found)."
        "\n"
        "Give a file of them: backbone.weights=PATH"
    )


def test_how_to_get_weights(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for config, home, way in (
        (
            {"hf_hub_id": "timm/"},
            ("timm/tiny_architecture.tag", ""),
            "with a network: hf download timm/tiny_architecture.tag model.safetensors. ",
        ),
        ({"hf_hub_id": "their/net"}, ("their/net", ""), "with a network: hf download their/net model.safetensors. "),
        ({}, ("", ""), "timm has none for tiny_architecture.\n"),
    ):
        publish(**config)
        assert home_of(TINY.architecture) == home
        assert way in load_weights(TINY, TINY.build(), "auto").trouble


def test_server_that_never_answers_is_given_up(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    assert segtune.models.pretrained.TIMEOUT_SECONDS + 2 < 15
    monkeypatch.setattr(segtune.models.pretrained, "TIMEOUT_SECONDS", 0.3)
    with listening(None) as url:
        publish(url)
        began = time.monotonic()
        assert find_pretrained("tiny") == (None, f"not in the local cache, and {url} cannot be reached (timed out).")
        assert time.monotonic() - began < 0.3 + 3


@pytest.mark.slow
def test_name_server_that_never_answers_is_given_up(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def look_up(*args: object, **options: object) -> None:
        released.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(segtune.models.pretrained, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", look_up)
    publish("http://weights.invalid/tiny.pth")
    began = time.monotonic()
    result = find_pretrained("tiny")
    elapsed = time.monotonic() - began
    released.set()
    assert result == (None, "not in the local cache, and http://weights.invalid/tiny.pth does not answer.")
    assert elapsed < 0.1 + 3


def test_server_that_speaks_no_http(publish: Publish) -> None:
    with listening(b"who is there?\r\n\r\n") as url:
        publish(url)
        path, trouble = find_pretrained("tiny")
    assert path is None
    assert trouble.startswith(f"not in the local cache, and {url} cannot be reached (who is there?")


def test_offline_asks_nobody(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("http://127.0.0.1:9/tiny.pth")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(urllib.request, "urlopen", None)
    assert find_pretrained("tiny") == (None, "not in the local cache, and HF_HUB_OFFLINE is set.")


def test_broken_download_is_told(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, path: str) -> None:
        raise OSError("no space left")

    write_pth(tmp_path / "tiny", tiny_state())
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with serving(tmp_path) as url:
        publish(f"{url}/tiny.pth")
        assert find_pretrained("tiny") == (None, f"the download of {url}/tiny.pth failed: no space left")


def test_repository_is_downloaded_into_the_cache_of_the_hub(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, float]] = []

    def download(repository: str, file: str, *, etag_timeout: float) -> str:
        asked.append((repository, file, etag_timeout))
        return str(tmp_path / file)

    publish(hf_hub_id="timm/")
    monkeypatch.setattr(segtune.models.pretrained, "_unreachable", lambda url: "")
    monkeypatch.setattr(segtune.models.pretrained, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(segtune.models.pretrained, "hf_hub_download", download)
    assert find_pretrained("tiny") == (tmp_path / "model.safetensors", "")
    assert asked == [("timm/tiny.tag", "model.safetensors", segtune.models.pretrained.TIMEOUT_SECONDS)]


def test_repository_in_the_local_cache(publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def look_up(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(segtune.models.pretrained, "try_to_load_from_cache", look_up)
    for hub_id in ("timm/", "timm/tiny.other"):
        publish(hf_hub_id=hub_id)
        assert find_pretrained("tiny") == (tmp_path / "model.safetensors", "")
    assert asked == [("timm/tiny.tag", "model.safetensors"), ("timm/tiny.other", "model.safetensors")]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("convnext_tiny.fb_in1k", "timm/convnext_tiny.fb_in1k"),
        ("convnext_tiny.in12k_ft_in1k", "timm/convnext_tiny.in12k_ft_in1k"),
        ("convnext_tiny", f"timm/convnext_tiny.{get_pretrained_cfg('convnext_tiny').tag}"),
    ],
)
def test_a_tag_in_the_name_says_which_weights(
    name: str, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(repository: str, file: str) -> str:
        asked.append(f"{repository}/{file}")
        return str(tmp_path / file)

    monkeypatch.setattr(segtune.models.pretrained, "try_to_load_from_cache", look_up)
    assert find_pretrained(name) == (tmp_path / "model.safetensors", "")
    assert asked == [f"{repository}/model.safetensors"]


def test_architecture_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segtune.models.pretrained, "get_pretrained_cfg", lambda architecture: None)
    assert find_pretrained("tiny") == (None, "timm has none for tiny.")
