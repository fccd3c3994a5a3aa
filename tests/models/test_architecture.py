"""Which file's backbone is that of a model: by the name in segtune's checkpoints, or by what fits."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from segtune.models.architecture import BACKBONE, backbone_in, why_foreign

OURS = [f"backbone.layer{n}.weight" for n in range(4)]
VECTORS = [f"backbone.bn{n}.weight" for n in range(9)]
COUNTERS = [f"backbone.bn{n}.num_batches_tracked" for n in range(9)]


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(timm.create_model(name, pretrained=False).state_dict())


def checkpoint(path: Path, backbone: str) -> Path:
    torch.save({"settings": {"backbone": {"name": backbone}}, "model": {"a": torch.zeros(2)}}, path)
    return path


def test_the_backbone_that_a_checkpoint_names(tmp_path: Path) -> None:
    assert backbone_in(checkpoint(tmp_path / "a.pt", "xception")) == "xception"


@pytest.mark.parametrize("content", [{}, {"settings": 3}, {"settings": {"backbone": None}}, [1], torch.zeros(2)])
def test_other_files_name_none(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert backbone_in(tmp_path / "a.pt") == ""
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert backbone_in(tmp_path / "old.pt") == ""
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert backbone_in(tmp_path / "a.safetensors") == ""
    assert backbone_in(tmp_path / "none.pt") == ""


def judged(path: Path, name: str, fits: int, more: int = 0, found: list[str] = OURS) -> tuple[bool, str]:
    """Return what is found of a file with some of our weights, `more` others, and all vectors and counters."""
    fit_by_chance = dict.fromkeys(VECTORS, torch.zeros(9)) | dict.fromkeys(COUNTERS, torch.zeros(()))
    others = [f"backbone.other{n}" for n in range(more)]
    theirs = dict.fromkeys([*found, *others, "decoder.weight"], torch.zeros(1, 1)) | fit_by_chance
    wanted = dict.fromkeys([*OURS, "decoder.weight"], torch.zeros(1, 1)) | fit_by_chance
    foreign, warning = why_foreign(path, name, theirs, wanted, [*OURS[:fits], *fit_by_chance, "decoder.weight"])
    return foreign, warning.replace(str(path), "FILE")


def test_another_backbone_by_name_restores_nothing_unless_all_of_it_fits(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pt", "resnet101")
    trained = "FILE was trained with the backbone resnet101, not resnet50"
    for fits in (0, 1, 3):
        counts = f"{fits} of 4 weights of resnet50 fit by name and shape"
        assert judged(path, "resnet50", fits) == (True, f"{trained}: its backbone is not restored ({counts}).")
    assert judged(path, "resnet50", 4, more=9) == (
        False,
        f"{trained}; all 4 of 4 weights of resnet50 fit by name and shape, so they are restored.",
    )


@pytest.mark.parametrize("name", ["resnet50", "resnet50.tv_in1k"])
def test_the_same_backbone_by_name_may_fit_in_part(tmp_path: Path, name: str) -> None:
    """The tag names weights, not a network; another decoder reaches deeper than the file."""
    assert judged(checkpoint(tmp_path / "a.pt", "resnet50.a1_in1k"), name, 1) == (False, "")
    assert judged(checkpoint(tmp_path / "a.pt", "resnet50"), name, 1) == (False, "")


def test_a_file_without_names_is_judged_by_what_fits(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path := tmp_path / "a.pth")
    counts = "1 of 4 weights of vgg16 fit by name and shape"
    said = f"The backbone in FILE is another network than vgg16: it is not restored ({counts})."
    assert judged(path, "vgg16", 1) == (True, said)
    assert judged(path, "vgg16", 2) == (False, "")
    assert judged(path, "vgg16", 1, found=OURS[:2]) == (False, "")  # a file of a part of the network
    assert judged(path, "vgg16", 0, found=[]) == (False, "")  # a file of a decoder
    assert judged(path, "", 0) == (False, "")


@pytest.mark.parametrize(
    ("theirs", "ours"), [("resnet34", "resnet50"), ("resnet18", "resnet50"), ("resnet50", "resnet34")]
)
def test_networks_of_one_family_whose_names_and_vectors_are_the_same(theirs: str, ours: str, tmp_path: Path) -> None:
    found, wanted = (
        {f"{BACKBONE}{key}": tensor for key, tensor in tensors_of(name).items() if "fc." not in key}
        for name in (theirs, ours)
    )
    fitting = [name for name, tensor in wanted.items() if name in found and found[name].shape == tensor.shape]
    assert 2 * len(fitting) > len(wanted) or theirs == "resnet18"  # most, but for BatchNorm
    foreign, warning = why_foreign(tmp_path / "a.pth", ours, found, wanted, fitting)
    assert foreign
    assert f"is another network than {ours}: it is not restored" in warning
