"""Restoring against state dicts: what fits is the file's to the last bit, all else is the model's and reported."""

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from segtune.config.model_settings import BackboneSettings, DeepLabV3PlusSettings, RestoreSettings
from segtune.errors import UserError
from segtune.models.build import BuiltModel, build_model
from segtune.models.model import SegmentationModel
from segtune.models.restore import Restored, restore

BuiltOf = Callable[[str], BuiltModel]
State = dict[str, Tensor]
CONF = Path(__file__).parents[2] / "conf"


def tiny(outputs: int = 1, seed: int = 0) -> SegmentationModel:
    """A backbone of a convolution and a BatchNorm, and a decoder of one convolution: ten tensors, two of them facts."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone, decoder = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)), nn.Conv2d(4, outputs, 1)
        for tensor in [*backbone.state_dict().values(), *decoder.state_dict().values()]:
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(100 + seed))
    return SegmentationModel(backbone, decoder, {}, (0.1 * seed,) * 3, (0.2 + seed,) * 3)


TENSORS = [name for name in tiny().state_dict() if name not in ("mean", "std")]
BACKBONE = [name for name in TENSORS if name.startswith("backbone.")]
DECODER = ["decoder.weight", "decoder.bias"]


def state(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def part(tensors: State, beginning: str) -> State:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(beginning)}


def write(path: Path, tensors: State) -> str:
    torch.save({"format": 2, "settings": {}, "model": tensors}, path)
    return str(path)


def run(model: nn.Module, path: str | Path, **settings: Any) -> Restored:
    return restore(model, RestoreSettings(str(path), **settings))


def refusal(path: str | Path, model: nn.Module | None = None, **settings: Any) -> str:
    """The message of a restore that must fail and leave every tensor of the model as it is."""
    model = tiny(seed=1) if model is None else model
    before = state(model)
    with pytest.raises(UserError) as error:
        run(model, path, **settings)
    assert same(before, state(model))
    return str(error.value).replace(str(path), "FILE")


@pytest.fixture
def source() -> State:
    return state(tiny(seed=7))


@pytest.fixture
def file(tmp_path: Path, source: State) -> str:
    return write(tmp_path / "best.pt", source)


# --- what is copied ---


def test_a_whole_model_comes_back_to_the_last_bit(file: str, source: State) -> None:
    model = tiny()
    kept = state(model)
    result = run(model, file, strict=True)
    assert result == Restored(file, tuple(TENSORS), (), (), {}, ())
    now = state(model)
    assert same({n: now[n] for n in TENSORS}, {n: source[n] for n in TENSORS})
    assert now["backbone.1.num_batches_tracked"] == 107
    assert same({n: now[n] for n in ("mean", "std")}, {n: kept[n] for n in ("mean", "std")})
    assert not torch.equal(now["mean"], source["mean"])


@pytest.mark.parametrize(("scope", "names"), [("backbone", BACKBONE), ("decoder", DECODER)])
def test_the_part_outside_the_scope_is_untouched_and_unmentioned(
    tmp_path: Path, source: State, scope: str, names: list[str]
) -> None:
    other = "decoder" if scope == "backbone" else "backbone"
    file = write(tmp_path / "a.pt", source | {f"{other}.extra": torch.zeros(1)})
    model = tiny()
    before = state(model)
    assert run(model, file, scope=scope, strict=True) == Restored(file, tuple(names), (), (), {}, ())
    assert same(state(model), {n: (source if n in names else before)[n] for n in before})


@pytest.mark.parametrize(
    ("patterns", "excluded"),
    [
        (["decoder"], DECODER),
        (["backbone.0", "decoder.bias"], ["backbone.0.weight", "decoder.bias"]),
        ([r"re:.*\.bias"], ["backbone.1.bias", "decoder.bias"]),
    ],
)
def test_what_is_excluded_stays(file: str, source: State, patterns: list[str], excluded: list[str]) -> None:
    model = tiny()
    before = state(model)
    result = run(model, file, exclude=patterns, strict=True)
    assert result.excluded == tuple(excluded)
    assert result.restored == tuple(name for name in TENSORS if name not in excluded)
    kept = ["mean", "std", *excluded]
    assert same(state(model), {n: (before if n in kept else source)[n] for n in before})


def test_the_counter_of_batches_is_restored_but_not_missed(tmp_path: Path, source: State) -> None:
    del source["backbone.1.num_batches_tracked"]
    model = tiny(seed=3)
    result = run(model, write(tmp_path / "a.pt", source), strict=True)
    assert result.missing == ()
    assert state(model)["backbone.1.num_batches_tracked"] == 103


# --- names ---


def test_beginnings_are_renamed_the_longest_first(tmp_path: Path, source: State) -> None:
    names = {"backbone.0": "net.encoder.conv", "backbone.1": "net.encoder.norm", "decoder": "net.head"}
    foreign = {
        theirs + name.removeprefix(ours): tensor
        for ours, theirs in names.items()
        for name, tensor in source.items()
        if name.startswith(ours)
    }
    save_file(foreign | {"net.extra": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    model = tiny()
    rename = {"net.": "", "net.head": "decoder", "net.encoder.": "backbone.", "net.encoder.conv": "backbone.0"}
    rename["net.encoder.norm"] = "backbone.1"
    result = run(model, tmp_path / "foreign.safetensors", rename=rename)
    assert (result.restored, result.missing, result.unexpected) == (tuple(TENSORS), (), ("extra",))
    assert same({n: state(model)[n] for n in TENSORS}, {n: source[n] for n in TENSORS})


@pytest.mark.parametrize(("scope", "names"), [("backbone", BACKBONE), ("decoder", DECODER)])
def test_a_plain_state_dict_of_one_part_fits_its_scope(
    tmp_path: Path, source: State, scope: str, names: list[str]
) -> None:
    plain = {name.removeprefix(f"{scope}."): source[name] for name in names}
    torch.save(plain | {"fc.weight": torch.zeros(2)}, tmp_path / "plain.pth")
    model = tiny()
    result = run(model, tmp_path / "plain.pth", scope=scope)
    assert result.restored == tuple(names)
    assert result.unexpected == (f"{scope}.fc.weight",)
    assert same(part(state(model), scope), part(source, scope))


def test_a_file_that_does_not_say_its_parts_needs_a_scope(tmp_path: Path) -> None:
    torch.save(tiny().backbone.state_dict(), tmp_path / "plain.pth")
    assert refusal(tmp_path / "plain.pth") == (
        "FILE does not tell the backbone's tensors from the decoder's: no name begins with backbone. or "
        "decoder. The names are: 0.weight, 1.weight, 1.bias, 1.running_mean and 2 more.\n"
        "If it holds only a backbone, set restore.scope=backbone; otherwise map its names to ours, such as "
        "'+restore.rename={encoder.:backbone.}'."
    )


def test_a_rename_that_matches_nothing_is_refused(file: str) -> None:
    assert refusal(file, rename={"backbon3.0.weight": "x"}) == (
        "restore.rename: no tensor of FILE has a name that begins with 'backbon3.0.weight'. "
        "Did you mean backbone.0.weight? "
        "The names are: mean, std, backbone.0.weight, backbone.1.weight and 6 more."
    )


def test_a_rename_that_joins_two_tensors_is_refused(file: str) -> None:
    assert refusal(file, rename={"decoder.weight": "decoder.bias"}) == (
        "restore.rename: decoder.weight and decoder.bias of FILE both become decoder.bias."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"exclude": ["decodr"]},
            "restore.exclude: 'decodr' matches nothing. Did you mean decoder.bias? The names are: "
            "backbone.0.weight, backbone.1.weight, backbone.1.bias, …, decoder.weight, decoder.bias.",
        ),
        (
            {"exclude": ["backbone.0"], "scope": "decoder"},
            "restore.exclude: 'backbone.0' matches nothing. The names are: decoder.weight, decoder.bias.",
        ),
        (
            {"exclude": ["mean"], "scope": "decoder"},
            "restore.exclude: 'mean' matches nothing. The names are: decoder.weight, decoder.bias.",
        ),
        (
            {"exclude": ["re:decoder.*"], "scope": "decoder"},
            "restore.exclude leaves nothing to restore of restore.scope=decoder.",
        ),
    ],
)
def test_patterns_must_match_and_leave_something(file: str, settings: dict[str, Any], message: str) -> None:
    assert refusal(file, **settings) == message


# --- what does not fit ---


def misfit(source: State) -> State:
    """A file with two tensors missing, two too many and one of another shape."""
    del source["backbone.1.bias"], source["backbone.1.weight"]
    source["decoder.weight"] = torch.zeros(2, 4, 1, 1)
    return source | {"decoder.extra": torch.zeros(1), "other": torch.zeros(1)}


def test_what_does_not_fit_is_reported_and_left(tmp_path: Path, source: State) -> None:
    path = write(tmp_path / "a.pt", misfit(source))
    model = tiny()
    before = state(model)
    result = run(model, path, exclude=["decoder.bias"])
    assert result.lines(most=1) == [
        f"Restored from {path}: backbone 4 of 6 tensors, decoder 0 of 2 tensors.",
        "  missing (2): backbone.1.weight and 1 more",
        "  unexpected (2): decoder.extra and 1 more",
        "  shape mismatch (1): decoder.weight (file (2, 4, 1, 1), model (1, 4, 1, 1))",
        "  excluded (1): decoder.bias",
    ]
    taken = ["backbone.0.weight", *(f"backbone.1.{name}" for name in ("running_mean", "running_var"))]
    taken.append("backbone.1.num_batches_tracked")
    assert set(result.restored) == set(taken)
    assert same(state(model), {n: (source if n in taken else before)[n] for n in before})


def test_what_fits_needs_one_line(file: str) -> None:
    assert run(tiny(), file, scope="backbone").lines() == [f"Restored from {file}: backbone 6 of 6 tensors."]


def test_strict_refuses_what_does_not_fit(tmp_path: Path, source: State) -> None:
    assert refusal(write(tmp_path / "a.pt", misfit(source)), strict=True) == (
        "restore.strict=true, but FILE does not fit the model:\n"
        "  missing (2): backbone.1.weight, backbone.1.bias\n"
        "  unexpected (2): decoder.extra, other\n"
        "  shape mismatch (1): decoder.weight (file (2, 4, 1, 1), model (1, 4, 1, 1))\n"
        "Name what should stay as it is in restore.exclude, or set restore.strict=false."
    )


def test_strict_names_twenty(tmp_path: Path, source: State) -> None:
    path = write(tmp_path / "a.pt", source | {f"extra{i:02}": torch.zeros(1) for i in range(25)})
    named = ", ".join(f"extra{i:02}" for i in range(20))
    assert f"\n  unexpected (25): {named} and 5 more\n" in refusal(path, strict=True)


@pytest.mark.parametrize("strict", [False, True])
def test_a_file_of_which_nothing_fits_is_refused(tmp_path: Path, strict: bool) -> None:
    # The counter alone would fit: it is of every BatchNorm, so it proves nothing.
    alien = {
        "model.stem.weight": torch.zeros(1),
        "model.stem.bias": torch.zeros(2),
        "model.1.num_batches_tracked": torch.tensor(3),
        "model.0.weight": torch.zeros(8, 3, 1, 1),
        "norm": torch.zeros(3),
    }
    path = write(tmp_path / "a.pt", alien)
    assert refusal(path, scope="backbone", rename={"model.": ""}, strict=strict) == (
        "Nothing of FILE can be restored: none of the 6 tensors wanted fits; shape mismatch: 1.\n"
        "  The file's 5: model.stem.weight (renamed backbone.stem.weight), "
        "model.stem.bias (renamed backbone.stem.bias), "
        "model.1.num_batches_tracked (renamed backbone.1.num_batches_tracked), "
        "model.0.weight (renamed backbone.0.weight) and 1 more\n"
        "  Wanted: backbone.0.weight, backbone.1.weight, backbone.1.bias, backbone.1.running_mean and 2 more\n"
        "Check restore.checkpoint and restore.scope, or map the file's names to ours with restore.rename."
    )


def test_a_file_without_the_wanted_part_or_any_tensor_is_refused(tmp_path: Path, source: State) -> None:
    path = write(tmp_path / "a.pt", part(source, "backbone."))
    assert refusal(path, scope="decoder") == (
        "Nothing of FILE can be restored: none of the 2 tensors wanted fits.\n"
        "  The file's 6: backbone.0.weight, backbone.1.weight, backbone.1.bias, backbone.1.running_mean and 2 more\n"
        "  Wanted: decoder.weight, decoder.bias\n"
        "Check restore.checkpoint and restore.scope, or map the file's names to ours with restore.rename."
    )


def test_restoring_needs_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt") == "No weights file at FILE. Expected a .safetensors, .pth or .pt file."
    with pytest.raises(ValueError, match=r"^restore\.checkpoint is not set$"):
        restore(tiny(), RestoreSettings())


# --- names of other programs ---


@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [
        ("encoder.", "decoder."),
        ("module.model.backbone.", "module.model.decoder."),
        ("net.encoder.", "net.head."),
        ("model.", "decoder."),
    ],
)
def test_other_names_of_the_parts_are_found_and_said(
    tmp_path: Path, source: State, caplog: pytest.LogCaptureFixture, backbone: str, decoder: str
) -> None:
    foreign = {
        name.replace("backbone.", backbone).replace("decoder.", decoder): tensor
        for name, tensor in source.items()
        if name in TENSORS
    }
    torch.save(foreign, tmp_path / "a.pt")
    model = tiny()
    with caplog.at_level(logging.INFO):
        assert run(model, tmp_path / "a.pt", strict=True).restored == tuple(TENSORS)
    ours = backbone.removeprefix("module.")
    said = f"{tmp_path / 'a.pt'}: names that begin with {ours} count as backbone. (restore.rename)."
    assert said in caplog.messages
    assert same(part(state(model), "decoder."), part(source, "decoder."))


def test_parts_that_fit_equally_well_are_refused_with_the_rename_that_chooses(tmp_path: Path, source: State) -> None:
    own = part(source, "backbone.")
    both = {name.replace("backbone.", each): tensor for each in ("q.", "k.") for name, tensor in own.items()}
    path = write(tmp_path / "a.pt", both)
    assert refusal(path, scope="backbone") == (
        "restore.checkpoint=FILE: the tensors of q., k. fit backbone equally well. Name one, such as "
        "'+restore.rename={q.:backbone.}'."
    )
    assert run(tiny(), path, scope="backbone", rename={"k.": "backbone."}).restored == tuple(BACKBONE)


# --- values ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_the_models(tmp_path: Path, source: State, dtype: torch.dtype) -> None:
    file = {n: t.to(dtype) if t.is_floating_point() else t for n, t in source.items()}
    model = tiny()
    run(model, write(tmp_path / "a.pt", file), strict=True)
    expected = {n: t.to(dtype).float() if t.is_floating_point() else t for n, t in source.items()}
    assert same(part(state(model), "backbone."), part(expected, "backbone."))
    assert same(part(state(model), "decoder."), part(expected, "decoder."))


def test_whole_numbers_become_floats(tmp_path: Path, source: State) -> None:
    source["decoder.bias"] = torch.tensor([5])
    model = tiny()
    run(model, write(tmp_path / "a.pt", source), strict=True)
    assert torch.equal(state(model)["decoder.bias"], torch.tensor([5.0]))


@pytest.mark.parametrize(
    "values",
    [torch.tensor([float("nan")]), torch.tensor([float("-inf")]), torch.tensor([1e300], dtype=torch.float64)],
    ids=["nan", "inf", "too large for float32"],
)
def test_values_that_are_not_finite_are_refused_unless_left_out(tmp_path: Path, source: State, values: Tensor) -> None:
    source["decoder.bias"] = values
    path = write(tmp_path / "a.pt", source)
    assert refusal(path) == (
        "FILE holds values that are not finite (NaN or infinity), in decoder.bias. "
        "Its training run diverged: use an earlier checkpoint, or leave these out with restore.exclude."
    )
    assert run(tiny(), path, exclude=["decoder.bias"]).excluded == ("decoder.bias",)
    assert run(tiny(), path, scope="backbone").restored == tuple(BACKBONE)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.target}'",))


@pytest.mark.parametrize("writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
@pytest.mark.parametrize("place", ["beside the tensors", "among the tensors"])
def test_a_file_with_code_runs_nothing_and_is_refused(
    tmp_path: Path, source: State, writer: Callable[..., Any], place: str
) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    content = {"settings": {}, "model": dict[str, Any](source)}
    (content if place == "beside the tensors" else content["model"])["extra"] = Payload(target)
    writer(content, path)
    assert refusal(path) == (
        "Cannot read the weights file FILE: it would run commands when loaded (posix.system). Nothing was run. "
        "Do not load it elsewhere.\n"
        "Expected a .safetensors file, or a .pth or .pt file of tensors by name."
    )
    assert not target.exists()
    pickle.loads(pickle.dumps(content))
    assert target.exists(), "the payload is a dud, so the test above proves nothing"


# --- real networks ---


@pytest.fixture(scope="module")
def real(built_of: BuiltOf, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, State]:
    """A checkpoint of ResNet50 with DeepLabV3+, each tensor with values no fresh model has."""
    tensors = state(built_of("resnet50_deeplabv3plus").model)
    tensors = {name: tensor + 1 if name not in ("mean", "std") else tensor for name, tensor in tensors.items()}
    return write(tmp_path_factory.mktemp("run") / "best.pt", tensors), tensors


def test_a_real_model_comes_back_to_the_last_bit(built_of: BuiltOf, real: tuple[str, State]) -> None:
    path, source = real
    model = built_of("resnet50_deeplabv3plus").model
    run(model, path, strict=True)
    assert same(state(model), source)


def test_another_decoder_takes_the_backbone(built_of: BuiltOf, real: tuple[str, State]) -> None:
    path, source = real
    model = built_of("resnet50_fcn8s").model
    before = state(model)
    result = run(model, path)
    # FCN-8s reads layer4, DeepLabV3+ stops inside the last unit of layer3: the deeper layers are not in the file.
    deeper = ("backbone.layer4.", "backbone.layer3.5.conv3.", "backbone.layer3.5.bn3.")
    wanted = [name for name in before if name not in ("mean", "std")]
    assert result.restored == tuple(n for n in wanted if n.startswith("backbone.") and not n.startswith(deeper))
    lacking = [n for n in wanted if n.startswith((*deeper, "decoder.")) and not n.endswith("num_batches_tracked")]
    assert result.missing == tuple(lacking)
    assert set(result.unexpected) == set(part(source, "decoder."))
    assert result.misshapen == {}
    assert same(state(model), {n: (source if n in result.restored else before)[n] for n in before})
    lines = run(model, path, scope="backbone", exclude=[module[:-1] for module in deeper], strict=True).lines()
    assert [line.partition(":")[0] for line in lines[1:]] == [
        f"  excluded ({sum(n.startswith(deeper) for n in wanted)})"
    ]


def test_other_taps_and_outputs_leave_what_has_another_shape(real: tuple[str, State]) -> None:
    path, source = real
    taps = yaml.safe_load((CONF / "taps" / "resnet50_deeplabv3plus.yaml").read_text(encoding="utf-8"))
    settings = DeepLabV3PlusSettings(channels=16, low_channels=8, outputs=2)
    taps["low"] = "conv2_block1_out"  # 256 channels, not 64
    model = build_model(BackboneSettings("resnet50", weights="none"), taps, settings).model
    before = state(model)
    result = run(model, path)
    assert result.misshapen == {
        "decoder.project.0.weight": ((8, 64, 1, 1), (8, 256, 1, 1)),
        "decoder.classifier.weight": ((1, 16, 1, 1), (2, 16, 1, 1)),
        "decoder.classifier.bias": ((1,), (2,)),
    }
    assert (result.missing, result.unexpected) == ((), ())
    kept = {*result.misshapen, "scale.low"}  # the scale belongs to decoder.project.0, which reads the feature
    assert same(state(model), {n: (before if n in kept else source)[n] for n in before})
