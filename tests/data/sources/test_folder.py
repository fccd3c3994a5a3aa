"""Finding pairs, in folders made by hand."""

from pathlib import Path

import pytest

from segtune.data.file_formats import EXTENSIONS
from segtune.data.sources.base import Pair
from segtune.data.sources.folder import find_pairs
from segtune.errors import UserError


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
    pairs, problems = find_pairs(tmp_path)
    assert pairs == [
        Pair("a.1", tmp_path / "images/a.1.png", tmp_path / "masks/a.1.tif"),
        Pair("b", tmp_path / "images/b.JPG", tmp_path / "masks/b.png"),
    ]
    assert problems == []


def test_composed_and_decomposed_accents_are_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/caf\u00e9.jpg", "masks/cafe\u0301.png")
    assert [pair.name for pair in find_pairs(tmp_path)[0]] == ["caf\u00e9"]


def test_every_kind_of_problem_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/a.png", "images/b.jpg", "images/notes.txt", "images/sub/x.jpg")
    touch(tmp_path, "masks/a.png", "masks/c.png")
    pairs, problems = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["a"]
    assert [str(problem) for problem in problems] == [
        "error: images/a.png: two files of one name: images/a.jpg exists too; keep one",
        "warning: images/: ignored: 2 that are not images (notes.txt, sub/)",
        "error: images/b.jpg: photo without mask: no masks/b.*",
        "error: masks/c.png: mask without photo: no images/c.*",
    ]


def test_a_partner_of_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "masks/a.png", "images/b.JXL", "masks/b.png", "images/c.jpg", "masks/c.nii.gz")
    touch(tmp_path, "images/.d.jpg.icloud", "masks/d.png")
    assert [str(problem) for problem in find_pairs(tmp_path)[1]][-3:] == [
        "error: images/c.jpg: photo without mask: masks/c.nii.gz is a NIfTI volume, which is not read; save its "
        "slices, photos in 8 or 16 bits, as in `numpy.save('FILE.npy', nibabel.load('FILE.nii.gz').dataobj[:, :, 0])`",
        "error: masks/b.png: mask without photo: images/b.JXL is a JPEG XL image, which is not read; convert it: "
        "`djxl FILE.jxl FILE.png` (libjxl)",
        "error: masks/d.png: mask without photo: images/.d.jpg.icloud is a placeholder of iCloud for a file that is "
        "not on this disk; download it in the Finder",
    ]


def test_folders_of_files_that_are_not_read_say_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.dcm", "images/b.dcm", "masks/a.nrrd", "masks/notes.txt")
    said = error(find_pairs, tmp_path)
    assert said.count("a DICOM file, which is not read") == 1
    assert " images/b.dcm is a DICOM file" in said
    assert " masks/a.nrrd is a volume (NRRD or MetaImage), which is not read; " in said


def test_every_format_that_is_read_makes_a_pair(tmp_path: Path) -> None:
    endings = sorted(EXTENSIONS)
    touch(tmp_path, *(f"images/{number}{ending}" for number, ending in enumerate(endings)))
    touch(tmp_path, *(f"masks/{number}{ending.upper()}" for number, ending in enumerate(reversed(endings))))
    pairs, problems = find_pairs(tmp_path)
    assert len(pairs) == len(endings)
    assert problems == []


def test_missing_folders_name_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "Labels/a.png", "readme.txt", ".git/x")
    assert error(find_pairs, tmp_path) == (
        f"No folder masks/ in {tmp_path}. Expected images/ with the photos and masks/ with masks of the "
        "same names; "
        "got Labels/, images/, readme.txt. Perhaps rename Labels/ to masks/."
    )
    assert error(find_pairs, tmp_path / "images") == (
        f"No folder images/ in {tmp_path}/images. Expected images/ with the photos and masks/ with masks "
        "of the same "
        "names; got a.jpg."
    )
    assert error(find_pairs, tmp_path / "gone") == (
        f"data.root={tmp_path}/gone is not a folder (current folder: {Path.cwd()}). "
        "Set it to the folder of your data set."
    )


def test_no_pair_at_all_shows_both_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/p{i}.jpg" for i in range(7)), "masks/q0.png")
    assert error(find_pairs, tmp_path) == (
        f"No photo in {tmp_path} has a mask: images/ contains p0.jpg, p1.jpg, p2.jpg, p3.jpg, p4.jpg and 2 more; "
        "masks/ contains q0.png. Photo and mask must have the same name up to the extension, directly in "
        "these folders, "
        "such as images/a.jpg and masks/a.png. Extensions: .avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg "
        ".jpg .npy .png .tif .tiff .webp."
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
def test_what_all_masks_share_is_a_setting_that_the_message_names(
    tmp_path: Path, masks: list[str], pattern: str
) -> None:
    touch(tmp_path, "images/img1.jpg", "images/img2.jpg", "images/img10.jpg", *(f"masks/{mask}.png" for mask in masks))
    assert error(find_pairs, tmp_path).endswith(
        f". Masks are named {pattern}, where * is the name of the photo: set data.mask_name='{pattern}'"
    )
    pairs, problems = find_pairs(tmp_path, pattern)
    assert [(pair.name, pair.mask.stem) for pair in pairs] == [
        (pair.name, pattern.replace("*", pair.name)) for pair in pairs
    ]
    assert len(pairs) == len(masks)
    assert all(problem.level == "error" for problem in problems)
    assert len(problems) == 3 - len(masks)


def test_a_mask_name_that_does_not_fit(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png", "masks/c_mask.png")
    assert error(find_pairs, tmp_path, "*_mask").endswith(
        ". Masks are named *, where * is the name of the photo: set data.mask_name=null"
    )
    touch(tmp_path, "images/c.jpg")
    assert [str(problem) for problem in find_pairs(tmp_path, "*_mask")[1]] == [
        "error: masks/a.png: data.mask_name=*_mask does not fit it",
        "error: masks/b.png: data.mask_name=*_mask does not fit it",
        "error: images/a.jpg: photo without mask: no masks/a_mask.*",
        "error: images/b.jpg: photo without mask: no masks/b_mask.*",
    ]
