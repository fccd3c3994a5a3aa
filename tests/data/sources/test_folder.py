"""Finding pairs, in folders made by hand."""

from pathlib import Path

import pytest

from segtune.config.data_settings import DataSettings
from segtune.data.file_formats import EXTENSIONS
from segtune.data.sources.base import Found, Pair, Problem
from segtune.data.sources.folder import find_pairs
from segtune.errors import UserError


def found(root: Path, **settings: str) -> Found:
    return find_pairs(DataSettings("folder", str(root), **settings))  # type: ignore[arg-type]


def pairs_in(root: Path, **settings: str) -> tuple[list[Pair], list[Problem]]:
    result = found(root, **settings)
    return list(result.pairs), list(result.problems)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def error(call: object, *args: object, **named: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **named)  # type: ignore[operator]
    return str(caught.value)


def test_pairs_are_sorted_and_junk_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "images/b.JPG", "images/a.1.png", "masks/a.1.tif", "masks/b.png")
    touch(tmp_path, "images/.DS_Store", "images/._b.JPG", "masks/Thumbs.db", "masks/desktop.ini")
    touch(tmp_path, "images/@eaDir/b.JPG/SYNOPHOTO_THUMB_XL.jpg", "images/b.JPG:Zone.Identifier", "__MACOSX/x.jpg")
    pairs, problems = pairs_in(tmp_path)
    assert pairs == [
        Pair("a.1", tmp_path / "images/a.1.png", tmp_path / "masks/a.1.tif"),
        Pair("b", tmp_path / "images/b.JPG", tmp_path / "masks/b.png"),
    ]
    assert problems == []


def test_composed_and_decomposed_accents_are_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/caf\u00e9.jpg", "masks/cafe\u0301.png")
    assert [pair.name for pair in pairs_in(tmp_path)[0]] == ["caf\u00e9"]


def test_every_kind_of_problem_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/a.png", "images/b.jpg", "images/notes.txt", "images/sub/x.jpg")
    touch(tmp_path, "masks/a.png", "masks/c.png")
    pairs, problems = pairs_in(tmp_path)
    assert [pair.name for pair in pairs] == ["a"]
    assert [str(problem) for problem in problems] == [
        "error: images/a.png: two files of one name: images/a.jpg exists too; keep one",
        "warning: images/: ignored: 2 that are not images (notes.txt, sub/)",
        "error: images/b.jpg: photo without mask: no masks/b.*; data.missing=skip leaves it out",
        "error: masks/c.png: mask without photo: no images/c.*",
    ]


def test_a_partner_of_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/a.png", "images/b.JXL", "masks/b.png", "images/c.jpg", "masks/c.nii.gz")
    touch(tmp_path, "images/.d.jpg.icloud", "masks/d.png")
    assert [str(problem) for problem in pairs_in(tmp_path)[1]][-3:] == [
        "error: images/c.jpg: photo without mask: masks/c.nii.gz is a NIfTI volume, which is not read; save its "
        "slices, photos in 8 or 16 bits, as in `numpy.save('FILE.npy', nibabel.load('FILE.nii.gz').dataobj[:, :, 0])`; "
        "data.missing=skip leaves it out",
        "error: masks/b.png: mask without photo: images/b.JXL is a JPEG XL image, which is not read; convert it: "
        "`djxl FILE.jxl FILE.png` (libjxl)",
        "error: masks/d.png: mask without photo: images/.d.jpg.icloud is a placeholder of iCloud for a file that is "
        "not on this disk; download it in the Finder",
    ]


def test_folders_of_files_that_are_not_read_say_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.dcm", "images/b.dcm", "masks/a.nrrd", "masks/notes.txt")
    said = error(pairs_in, tmp_path)
    assert said.count("a DICOM file, which is not read") == 1
    assert " images/b.dcm is a DICOM file" in said
    assert " masks/a.nrrd is a volume (NRRD or MetaImage), which is not read; " in said


def test_every_format_that_is_read_makes_a_pair(tmp_path: Path) -> None:
    endings = sorted(EXTENSIONS)
    touch(tmp_path, *(f"images/{number}{ending}" for number, ending in enumerate(endings)))
    touch(tmp_path, *(f"masks/{number}{ending.upper()}" for number, ending in enumerate(reversed(endings))))
    pairs, problems = pairs_in(tmp_path)
    assert len(pairs) == len(endings)
    assert problems == []


def test_missing_folders_name_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "readme.txt", ".git/x")
    assert error(pairs_in, tmp_path) == (
        f"No folder masks/ in {tmp_path}. Expected images/ with the photos and masks/ with masks of the same names; "
        "got images/, readme.txt. Other folders and names: data.images=…, data.masks=…, data.mask_suffix=… or "
        "data.pairs=FILE.csv."
    )
    assert error(pairs_in, tmp_path / "gone") == (
        f"data.root={tmp_path}/gone is not a folder (current folder: {Path.cwd()}). "
        "Set it to the folder of your data set."
    )


def test_no_pair_at_all_shows_both_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/p{i}.jpg" for i in range(7)), "masks/q0.png")
    assert error(pairs_in, tmp_path) == (
        f"No photo in {tmp_path} has a mask: images/ contains p0.jpg, p1.jpg, p2.jpg, p3.jpg, p4.jpg and 2 more; "
        "masks/ contains q0.png. Photo and mask must have the same name up to the extension, such as images/a.jpg and "
        "masks/a.png, or masks must share what they have besides, such as a_mask.png: data.mask_suffix=_mask. "
        "Extensions: .avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .npy .png .tif .tiff .webp."
    )


@pytest.mark.parametrize(
    ("masks", "pattern"),
    [
        (["img1_mask", "img2_mask"], "*_mask"),
        (["mask_img1", "mask_img2", "mask_img10"], "mask_*"),
        (["a-img1.gt", "a-img2.gt"], "a-*.gt"),
        (["img10_m"], "*_m"),
    ],
)
def test_what_all_masks_share_is_found_and_recorded(tmp_path: Path, masks: list[str], pattern: str) -> None:
    touch(tmp_path, "images/img1.jpg", "images/img2.jpg", "images/img10.jpg", *(f"masks/{mask}.png" for mask in masks))
    result = found(tmp_path)
    assert (result.layout, result.settings["mask_name"]) == (f"images/ with masks/{pattern}.png", pattern)
    pairs, problems = pairs_in(tmp_path, mask_name=pattern)
    assert (list(result.pairs), list(result.problems)) == (pairs, problems)
    assert sorted(pair.mask.stem for pair in pairs) == sorted(masks)
    assert [pair.mask.stem for pair in pairs] == [pattern.replace("*", pair.name) for pair in pairs]
    assert all(problem.level == "error" for problem in problems)
    assert len(problems) == 3 - len(masks)


def test_a_mask_name_that_does_not_fit(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png", "masks/c_mask.png")
    assert error(pairs_in, tmp_path, mask_name="*_mask").endswith(
        ". Masks are named *, where * is the name of the photo: set data.mask_name=null"
    )
    touch(tmp_path, "images/c.jpg")
    assert [str(problem) for problem in pairs_in(tmp_path, mask_name="*_mask")[1]] == [
        "error: masks/a.png: data.mask_name=*_mask does not fit it",
        "error: masks/b.png: data.mask_name=*_mask does not fit it",
        "error: images/a.jpg: photo without mask: no masks/a_mask.*; data.missing=skip leaves it out",
        "error: images/b.jpg: photo without mask: no masks/b_mask.*; data.missing=skip leaves it out",
    ]


def test_subfolders_count_where_both_have_them(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/p1/a.jpg", "images/old/b.jpg", "images/old/c.txt")
    touch(tmp_path, "masks/a.png", "masks/p1/a.png", "masks/older/x.png")
    pairs, problems = pairs_in(tmp_path)
    assert [(pair.name, pair.photo.relative_to(tmp_path).as_posix()) for pair in pairs] == [
        ("a", "images/a.jpg"),
        ("p1/a", "images/p1/a.jpg"),
    ]
    assert [str(problem) for problem in problems] == [
        "warning: images/: ignored: 2 that are not images (c.txt, old/)",
        "warning: masks/: ignored: 1 that are not images (older/)",
    ]


def test_masks_may_lie_below_the_photos(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "images/masks/a.png", "images/masks/b.png", "images/old/x.jpg")
    result = found(tmp_path)
    assert (result.layout, [pair.name for pair in result.pairs]) == ("images/ with images/masks/", ["a", "b"])
    assert list(map(str, result.problems)) == ["warning: images/: ignored: 1 that are not images (old/)"]


def test_photos_without_mask_are_left_out_when_asked_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png")
    assert len(found(tmp_path).problems) == 2
    result = found(tmp_path, missing="skip")
    assert (result.layout, result.problems) == ("images/ with masks/, 2 photos without mask left out", [])
    assert (result.skipped, result.settings["missing"]) == (["b", "c"], "skip")
    touch(tmp_path, "masks/d.png")
    assert [str(problem) for problem in found(tmp_path, missing="skip").problems] == [
        "error: masks/d.png: mask without photo: no images/d.*"
    ]


def test_the_splits_of_folders(tmp_path: Path) -> None:
    for split, names in {"train": "abc", "valid": "d", "testing": "e"}.items():
        touch(tmp_path, *(f"{split}/images/{name}.jpg" for name in names))
        touch(tmp_path, *(f"{split}/masks/{name}.png" for name in names))
    result = found(tmp_path)
    assert result.splits == {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
    assert (result.layout, result.split_by) == ("{split}/images/ with {split}/masks/", "folders")
    touch(tmp_path, "valid/images/a.jpg", "valid/masks/a.png", "valid/images/z.jpg")
    again = found(tmp_path)
    assert [pair.name for pair in again.pairs] == ["test/e", "train/a", "train/b", "train/c", "val/a", "val/d"]
    assert [str(problem) for problem in again.problems] == [
        "error: valid/images/z.jpg: photo without mask: none in {split}/masks is named z; data.missing=skip leaves it "
        "out"
    ]


def test_folders_of_training_images_alone_are_no_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{part}.jpg" for part in "ab"), *(f"train_masks/{part}_mask.png" for part in "ab"))
    result = found(tmp_path)
    assert (result.splits, result.layout) == (None, "{split}/ with {split}_masks/*_mask.png")
