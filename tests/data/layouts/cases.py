"""How people and tools keep photos and masks: one case per layout or export of the small data set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.data.layouts.small_set import Sample, put

Write = Callable[[Path, Sequence[Sample]], None]


@dataclass(frozen=True)
class Case:
    """A layout or export.

    Attributes:
        write: Writes the small data set into a folder.
        row: The text of its row in the table of `docs/data.md`.
        says: What the first line says of it; of a case that is refused, part of the message.
        settings: Settings of `data` beside `root`; `{root}` stands for the folder.
        refused: Whether the folder alone is refused: with a message whose settings then work.
        name: The name of a pair.
        splits: Whether the layout fixes the split of the samples.
    """

    write: Write
    row: str
    says: str
    settings: Mapping[str, object] = field(default_factory=dict)
    refused: bool = False
    name: str = "{name}"
    splits: bool = False


def files(photo: str, mask: str, **others: str) -> Write:
    """Return a writer of files at these places; `others` are further files and their content."""

    def write(root: Path, samples: Sequence[Sample]) -> None:
        for sample in samples:
            put(root, sample.filled(photo), sample.photo)
            put(root, sample.filled(mask), sample.png())
        for path, content in others.items():
            put(root, path, content)

    return write


def both(*writers: Write) -> Write:
    """Return a writer that writes what several do."""

    def write(root: Path, samples: Sequence[Sample]) -> None:
        for writer in writers:
            writer(root, samples)

    return write


def lists(folder: str, entry: str) -> Write:
    """Return a writer of lists of the split."""

    def write(root: Path, samples: Sequence[Sample]) -> None:
        for split in ("train", "val", "test"):
            lines = [sample.filled(entry) for sample in samples if sample.split == split]
            put(root, f"{folder}{split}.txt", "\n".join(lines))

    return write


def table(name: str, header: str, row: str, *, begin: bytes = b"", end: str = "\n") -> Write:
    """Return a writer of a CSV file."""

    def write(root: Path, samples: Sequence[Sample]) -> None:
        lines = ([header] if header else []) + [sample.filled(row) for sample in samples]
        put(root, name, begin + end.join(lines).encode())

    return write


def without_masks(path: str) -> Write:
    """Return a writer of photos that have no mask."""

    def write(root: Path, samples: Sequence[Sample]) -> None:
        for sample in samples[:2]:
            put(root, sample.filled(path), sample.photo)

    return write


USUAL = files("images/{name}.jpg", "masks/{name}.png")
CSV = files("a/{name}.jpg", "b/m{number}.png")
FOLDERS = "`images/`, `masks/`"
SUFFIX = "what all masks share"
SPLIT_INSIDE = "`images/train/`, `masks/train/`"
SPLIT_OUTSIDE = "`train/images/`, `train/masks/`"
ONE = "one folder"
NESTED = "folders per person or day"
OF_CSV = "a CSV file"

CASES: dict[str, Case] = {
    "images, masks": Case(USUAL, FOLDERS, "images/ with masks/; split by seed 0"),
    "imgs, labels": Case(files("imgs/{name}.jpg", "labels/{name}.png"), FOLDERS, "imgs/ with labels/"),
    "Photos, Ground Truth": Case(
        files("Photos/{name}.jpg", "Ground Truth/{name}.png"), FOLDERS, "Photos/ with Ground Truth/"
    ),
    "original_images, skin_masks": Case(
        files("original_images/{name}.jpg", "skin_masks/{name}.bmp"), FOLDERS, "original_images/ with skin_masks/"
    ),
    "images, annotations/trimaps": Case(
        files("images/{name}.jpg", "annotations/trimaps/{name}.png", **{"annotations/list.txt": "a"}),
        FOLDERS,
        "images/ with annotations/trimaps/",
    ),
    "in a folder of its own": Case(
        files("dataset/images/{name}.jpg", "dataset/masks/{name}.png"), FOLDERS, "dataset/images/ with dataset/masks/"
    ),
    "photos in the root": Case(files("{name}.jpg", "masks/{name}.png"), FOLDERS, "./ with masks/"),
    "photos, photos_masks": Case(files("cats/{name}.jpg", "cats_masks/{name}.png"), FOLDERS, "cats/ with cats_masks/"),
    "with lists": Case(
        both(USUAL, lists("", "{name}.jpg")), "`train.txt`", "images/ with masks/; split by lists", splits=True
    ),
    "with lists of paths": Case(
        both(USUAL, lists("", "./images/{name}.jpg")), "`train.txt`", "images/ with masks/; split by lists", splits=True
    ),
    "with lists of pairs of paths": Case(
        both(USUAL, lists("", "images/{name}.jpg masks/{name}.png")),
        "`train.txt`",
        "images/ with masks/; split by lists",
        splits=True,
    ),
    "suffix _segmentation": Case(
        files("images/{name}.jpg", "masks/{name}_segmentation.png"), SUFFIX, "images/ with masks/*_segmentation.png"
    ),
    "prefix gt-": Case(files("images/{name}.jpg", "masks/gt-{name}.png"), SUFFIX, "images/ with masks/gt-*.png"),
    "name.jpg.png": Case(files("images/{name}.jpg", "masks/{name}.jpg.png"), SUFFIX, "images/ with masks/*.jpg.png"),
    "affixes of both": Case(
        files("images/photo_{number}.jpg", "masks/label_{number}.png"),
        SUFFIX,
        "images/photo_* with masks/label_*",
        name="{number}",
    ),
    "other case": Case(files("images/{NAME}.jpg", "masks/{name}.png"), SUFFIX, "9 names differ in case", name="{NAME}"),
    "other zeros": Case(
        files("images/img_{number}.jpg", "masks/img_{number:04}.png"),
        SUFFIX,
        "9 names differ in zeros before numbers",
        name="img_{number}",
    ),
    "other zeros and a suffix": Case(
        files("images/img_{number}.jpg", "masks/IMG_{number:04}_GT.png"),
        SUFFIX,
        "images/ with masks/*_GT.png, 9 names differ in zeros before numbers",
        name="img_{number}",
    ),
    "train/images, train/masks": Case(
        files("{split}/images/{name}.jpg", "{split}/masks/{name}.png"),
        SPLIT_OUTSIDE,
        "{split}/images/ with {split}/masks/; split by folders",
        splits=True,
    ),
    "training/images, validation/images": Case(
        files("{long}/images/{name}.jpg", "{long}/masks/{name}_mask.png"),
        SPLIT_OUTSIDE,
        "{split}/images/ with {split}/masks/*_mask.png; split by folders",
        splits=True,
    ),
    "images/train, masks/train": Case(
        files("images/{valid}/{name}.jpg", "masks/{valid}/{name}.png"),
        SPLIT_INSIDE,
        "images/{split}/ with masks/{split}/; split by folders",
        splits=True,
    ),
    "img_dir/train, ann_dir/train": Case(
        files("img_dir/{split}/{name}.jpg", "ann_dir/{split}/{name}.png"),
        SPLIT_INSIDE,
        "img_dir/{split}/ with ann_dir/{split}/; split by folders",
        splits=True,
    ),
    "one name in several splits": Case(
        files("{split}/images/x{rank}.jpg", "{split}/masks/x{rank}.png"),
        SPLIT_OUTSIDE,
        "{split}/images/ with {split}/masks/; split by folders",
        name="{split}/x{rank}",
    ),
    "train, trainannot": Case(
        files("{split}/{name}.jpg", "{split}annot/{name}.png"),
        "`train/`, `trainannot/`",
        "{split}/ with {split}annot/; split by folders",
        splits=True,
    ),
    "train_images, train_masks": Case(
        files("{split}_images/{name}.jpg", "{split}_masks/{name}.png"),
        "`train/`, `trainannot/`",
        "{split}_images/ with {split}_masks/; split by folders",
        splits=True,
    ),
    "image-segmentation-keras": Case(
        files("images_prepped_{short}/{name}.jpg", "annotations_prepped_{short}/{name}.png"),
        "`images_prepped_train/`",
        "split by folders, val by seed 0 from train",
    ),
    "one folder, _mask": Case(files("{name}.jpg", "{name}_mask.png"), ONE, "*_mask.png beside the photos"),
    "one folder, -mask": Case(
        files("photos/{name}.jpg", "photos/{name}-mask.png"), ONE, "photos/ with *-mask.png beside the photos"
    ),
    "one folder, name.jpg.png": Case(files("{name}.jpg", "{name}.jpg.png"), ONE, "*.jpg.png beside the photos"),
    "one folder, extensions": Case(files("{name}.jpg", "{name}.png"), ONE, "*.jpg with *.png"),
    "one folder, _sat and _mask": Case(
        files("{number}_sat.jpg", "{number}_mask.png"), ONE, "*_sat with *_mask", name="{number}"
    ),
    "one folder, nested": Case(
        files("{person}/{name}.jpg", "{person}/{name}_mask.png"),
        ONE,
        "*_mask.png beside the photos",
        name="{person}/{name}",
    ),
    "a folder for each image": Case(
        both(
            files("{name}_json/img.jpg", "{name}_json/label.png"),
            files("{name}_json/img.jpg", "{name}_json/label_viz.png"),
            table("label_names.txt", "_background_", "{name}"),
        ),
        "a folder for each image",
        "**/img with **/label; split by seed 0",
        name="{name}_json",
    ),
    "Roboflow": Case(
        both(
            files("{valid}/{name}_jpg.rf.0a1b.jpg", "{valid}/{name}_jpg.rf.0a1b_mask.png"),
            files(
                "{valid}/{name}_jpg.rf.0a1b.jpg", "{valid}/{name}_jpg.rf.0a1b_mask.png", **{"README.roboflow.txt": ""}
            ),
            table("train/_classes.csv", "Pixel Value, Class", "1, object"),
        ),
        "Roboflow",
        "{split}/ with *_mask.png beside the photos; split by folders",
        name="{name}_jpg.rf.0a1b",
        splits=True,
    ),
    "PASCAL VOC": Case(
        both(
            files("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png"),
            files("JPEGImages/{name}.jpg", "SegmentationObject/{name}.png"),
            without_masks("JPEGImages/boxes_{name}.jpg"),
            lists("ImageSets/Segmentation/", "{name}"),
            files("JPEGImages/{name}.jpg", "SegmentationClass/{name}.png", **{"Annotations/img_01.xml": "<a/>"}),
        ),
        "PASCAL VOC",
        "JPEGImages/ with SegmentationClass/, 2 photos without mask left out; split by lists",
        splits=True,
    ),
    "nested": Case(
        files("images/{person}/{day}/{name}.jpg", "masks/{person}/{day}/{name}.png"),
        NESTED,
        "images/ with masks/",
        name="{person}/{day}/{name}",
    ),
    "person/images, person/masks": Case(
        files("{person}/images/{name}.jpg", "{person}/masks/{name}.png"),
        NESTED,
        "*/images/ with */masks/",
        name="{person}/{name}",
    ),
    "Cityscapes": Case(
        both(
            files(
                "leftImg8bit/{split}/{person}/{name}_leftImg8bit.jpg",
                "gtFine/{split}/{person}/{name}_gtFine_labelIds.png",
            ),
            files(
                "leftImg8bit/{split}/{person}/{name}_leftImg8bit.jpg", "gtFine/{split}/{person}/{name}_gtFine_color.png"
            ),
        ),
        "Cityscapes",
        "leftImg8bit/{split}/**/*_leftImg8bit with gtFine/{split}/**/*_gtFine_labelIds; split by folders",
        name="{person}/{name}",
        splits=True,
    ),
    "nnU-Net": Case(
        files("imagesTr/{name}_0000.jpg", "labelsTr/{name}.png", **{"dataset.json": "{}"}),
        "nnU-Net",
        "images{split}/*_0000 with labels{split}/; split by seed 0",
    ),
    "a folder of the class": Case(
        files("images/{name}.jpg", "masks/skin/{name}.png"), "a folder for each class", "images/ with masks/skin/"
    ),
    "folders of classes": Case(
        both(files("images/{name}.jpg", "masks/hair/{name}.png"), files("images/{name}.jpg", "masks/skin/{name}.png")),
        "a folder for each class",
        "can be read in several ways",
        refused=True,
    ),
    "DRIVE": Case(
        both(
            files("training/images/{number}_training.jpg", "training/1st_manual/{number}_manual1.png"),
            files("training/images/{number}_training.jpg", "training/mask/{number}_training_mask.png"),
        ),
        "several folders of masks",
        "can be read in several ways",
        refused=True,
        name="{number}",
    ),
    "some without mask": Case(
        both(USUAL, without_masks("images/new_{name}.jpg")),
        "photos of which some have no mask",
        "data.missing=skip",
        refused=True,
    ),
    "two kinds of masks": Case(
        both(files("imgs/{name}.jpg", "labels/{name}.png"), files("imgs/{name}.jpg", "masks/{name}.png")),
        "several folders of masks",
        "can be read in several ways",
        refused=True,
    ),
    "two kinds of masks in one folder": Case(
        both(files("images/{name}.jpg", "masks/{name}_body.png"), files("images/{name}.jpg", "masks/{name}_face.png")),
        "several folders of masks",
        "can be read in several ways",
        refused=True,
    ),
    "folders of any name": Case(
        files("one/{name}.jpg", "two/{name}.png"),
        "folders of other names",
        "data.images=one data.masks=two",
        refused=True,
    ),
    "a suffix of any name": Case(
        files("{name}.jpg", "{name}_x.png"), "folders of other names", "'data.mask_name=*_x'", refused=True
    ),
    "folders of any name, said": Case(
        files("one/{name}.jpg", "two/{name}_x.png"),
        "folders of other names",
        "one/ with two/*_x.png",
        settings={"images": "one", "masks": "{root}/two", "mask_suffix": "_x"},
    ),
    "patterns": Case(
        files("a/{person}/rgb_{number}.jpg", "b/seg/{person}-{number}.png"),
        "folders of other names",
        "a/*/rgb_*.jpg with b/seg/*-*.png",
        settings={"images": "a/*/rgb_*.jpg", "masks": "b/seg/*-*.png"},
        name="{person}/{number}",
    ),
    "CSV": Case(
        both(CSV, table("pairs.csv", "image,mask", "a/{name}.jpg,b/m{number}.png")),
        OF_CSV,
        "pairs.csv (columns image, mask); split by seed 0",
        settings={"pairs": "{root}/pairs.csv"},
    ),
    "CSV from Windows": Case(
        both(
            CSV,
            table(
                "lists/data.csv",
                "Image Path;Mask Path;Set",
                "..\\a\\{name}.jpg;..\\b\\m{number}.png;{long}",
                begin=b"\xef\xbb\xbf",
                end="\r\n",
            ),
        ),
        OF_CSV,
        "data.csv (columns Image Path, Mask Path, Set); split by column Set",
        settings={"pairs": "lists/data.csv"},
        splits=True,
    ),
    "tabs without header": Case(
        both(CSV, table("list.tsv", "", "a/{name}.jpg\tb/m{number}.png\t{split}")),
        OF_CSV,
        "list.tsv (columns 1, 2, 3); split by table",
        settings={"pairs": "list.tsv"},
        splits=True,
    ),
}
