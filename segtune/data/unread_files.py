"""Files that are taken for images but are not read: what each kind is, how it is told, and what to do with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: The extensions of videos, which `predict` takes alone.
VIDEOS = frozenset({".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
#: What Windows, Synology's disks and archives of macOS leave in folders, beside hidden files.
_JUNK = frozenset({"thumbs.db", "desktop.ini", "@eadir", "__macosx", "$recycle.bin"})


class Kind:
    """A kind of file: what to say of it, its extensions, and how its content begins: an offset and the bytes there."""

    def __init__(self, text: str, extensions: str = "", *beginnings: tuple[int, bytes]) -> None:
        """Create a kind; `extensions` are separated by spaces."""
        self.text, self.extensions, self.beginnings = text, tuple(extensions.split()), beginnings

    def fits(self, name: str) -> bool:
        """Return whether a file's name has one of the extensions."""
        return name.lower().endswith(self.extensions)

    def begins(self, head: bytes) -> bool:
        """Return whether a file that begins so is of this kind."""
        return any(head.startswith(each, offset) for offset, each in self.beginnings)


#: Many of them are TIFFs with a small preview as their first image.
RAW_PHOTO = Kind(
    "a camera's raw photo, which is not read; develop it, as with `darktable-cli FILE.nef FILE.jpg`",
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .pef .srw .3fr .iiq .x3f",
    *((0, b"FUJIFILMCCD-RAW"), (4, b"ftypcrx "), (0, b"IIRO"), (0, b"MMOR"), (0, b"IIU\0"), (8, b"CR\2\0")),
)
_SVG = Kind(
    "an SVG drawing, which is not read; draw it at the size of its photo: "
    "`rsvg-convert --width W --height H --output FILE.png FILE.svg`",
    ".svg",
)
_WEB_PAGE = Kind("a web page in place of the image, as failed downloads leave it; download the image itself")
# Where several fit, by content the first counts, and by name too the last.
_KINDS = (
    RAW_PHOTO,
    _SVG,
    _WEB_PAGE,
    Kind(
        "a PDF document, which is not read; save its pages as images: `pdftoppm -png FILE.pdf FILE` (Poppler)",
        ".pdf",
        (0, b"%PDF-"),
    ),
    Kind(
        "a DICOM file, which is not read, because its values need a window of grey; choose one: "
        "`dcmj2pnm --write-png --min-max-window FILE.dcm FILE.png` (DCMTK; or --set-window CENTER WIDTH)",
        ".dcm .dicom",
        (128, b"DICM"),
    ),
    Kind("a compressed file, which is not read; unpack it: `gunzip FILE.gz`", ".gz", (0, b"\x1f\x8b")),
    Kind(
        "a NIfTI volume, which is not read; save its slices, photos in 8 or 16 bits, as in "
        "`numpy.save('FILE.npy', nibabel.load('FILE.nii.gz').dataobj[:, :, 0])`",
        ".nii.gz .nii",
        (0, b"\x1f\x8b"),
        (344, b"n+1\0"),
        (344, b"ni1\0"),
    ),
    Kind(
        "a volume (NRRD or MetaImage), which is not read; save its slices, photos in 8 or 16 bits, as in "
        "`numpy.save('FILE.npy', SimpleITK.GetArrayFromImage(SimpleITK.ReadImage('FILE.nrrd'))[0])`",
        ".nrrd .nhdr .mha .mhd",
        (0, b"NRRD000"),
        (0, b"ObjectType = Image"),
    ),
    Kind(
        "a file of a microscope or slide scanner, which is not read; save regions as TIFF or PNG, with Fiji or QuPath",
        ".czi .lif .nd2 .oib .vsi .svs .ndpi .scn .mrxs",
        (0, b"ZISRAWFILE"),
    ),
    Kind(
        "a map in a format that is not read; convert it: `gdal_translate FILE FILE.tif` (GDAL)",
        ".ecw .sid .vrt .nitf .ntf",
        (0, b"NITF0"),
    ),
    Kind(
        "a Photoshop file, which is not read; flatten it: `magick 'FILE.psd[0]' FILE.png` (ImageMagick)",
        ".psd .psb",
        (0, b"8BPS"),
    ),
    Kind("a GIMP file, which is not read; export it as PNG", ".xcf", (0, b"gimp xcf")),
    Kind(
        "a JPEG XL image, which is not read; convert it: `djxl FILE.jxl FILE.png` (libjxl)",
        ".jxl",
        (0, b"\xff\x0a"),
        (0, b"\0\0\0\x0cJXL "),
    ),
    Kind(
        "an image in floating point, which is not read; map it to 8 or 16 bits, as with `magick FILE.exr FILE.png`",
        ".exr .hdr .pfm",
        (0, b"v/1\1"),
        (0, b"#?RADIANCE"),
    ),
    Kind(
        "an image in a format that is not read; convert it: `magick FILE FILE.png` (ImageMagick)",
        ".ppm .pgm .pbm .pnm .pam .tga .pcx .ico .dds .qoi .eps .ps",
        *((0, b"P%d" % number + end) for number in range(1, 8) for end in (b"\n", b" ")),
        *((0, b"%!PS"), (0, b"qoif"), (0, b"DDS ")),
    ),
    Kind(
        "a MATLAB file, which is not read; save the array: "
        "`numpy.save('FILE.npy', scipy.io.loadmat('FILE.mat')['NAME'])`",
        ".mat",
        (0, b"MATLAB "),
    ),
    Kind(
        "an HDF5 file, which is not read; save the array: `numpy.save('FILE.npy', h5py.File('FILE.h5')['NAME'][:])`",
        ".h5 .hdf5",
        (0, b"\x89HDF\r\n\x1a\n"),
    ),
    Kind(
        "a Python pickle, which is never loaded, because it may run any code; save the array with `numpy.save`",
        ".pkl .pickle",
        *((0, bytes((128, version))) for version in range(2, 6)),
    ),
    Kind(
        "an archive, which is not read; unpack it",
        ".zip .tar .7z .rar",
        (0, b"PK\3\4"),
        (257, b"ustar"),
        (0, b"7z\xbc\xaf"),
        (0, b"Rar!"),
    ),
    Kind(
        "an archive of NumPy arrays, which is not read; save the one that is meant: "
        "`numpy.save('FILE.npy', numpy.load('FILE.npz')['NAME'])`",
        ".npz",
        (0, b"PK\3\4"),
    ),
    Kind(
        "a pointer of Git LFS in place of the file; fetch the files: `git lfs pull`",
        "",
        (0, b"version https://git-lfs"),
    ),
    Kind(
        "a pointer of git-annex in place of the file; fetch it: `git annex get FILE`",
        "",
        (0, b"/annex/objects/"),
        (0, b".git/annex/objects/"),
        (0, b"../.git/annex/objects/"),
    ),
    Kind(
        "a companion file of macOS without the image; delete it: the image has the name without ._",
        "",
        (0, b"\0\5\x16\7"),
    ),
    Kind(
        "a placeholder of iCloud for a file that is not on this disk; download it in the Finder",
        ".icloud",
        (0, b"bplist00"),
    ),
    Kind(
        "a video: `predict` takes it alone, as input=FILE; for other uses save frames: `ffmpeg -i FILE NAME_%06d.png`",
        " ".join(VIDEOS - {".gif"}),
        *((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (8, b"AVI LIST"), (0, b"\x1aE\xdf\xa3")),
    ),
)


@dataclass(frozen=True)
class Unread:
    """A file that is not read: its name, and what it is and what to do."""

    name: str
    text: str


def is_junk(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that systems leave among images, such as thumbnails."""
    name = name.lower()
    return name.startswith(".") or name in _JUNK or name.endswith(":zone.identifier")


def told_by_name(name: str) -> str | None:
    """Return what a file of this name is that is not read, and what to do with it; None if the name does not tell."""
    return next((kind.text for kind in reversed(_KINDS) if kind.fits(name)), None)


def told_by_content(head: bytes, name: str) -> str:
    """Return why a file is not read, and what to do.

    Args:
        head: Its first bytes, 512 if it has so many.
        name: Its name, for those whose content does not tell; it may be wrong.
    """
    if not head:
        return "the file is empty"
    begun = [kind for kind in _KINDS if kind.begins(head)]
    text = head.lower()
    begun += [_WEB_PAGE] * (b"<html" in text or b"<!doctype html" in text) or [_SVG] * (b"<svg" in text)
    named = [kind for kind in begun or _KINDS if kind.fits(name)]
    if begun or named:
        return (named[-1] if named else begun[0]).text
    if not head.strip(b"\0"):
        return "it begins with zero bytes only, as a copy does that was cut short; copy it again"
    begin = _first_line(head)
    return f"a text that begins with {begin!r}, not an image" if begin else ""


def unread_by_stem(names: Iterable[str]) -> dict[str, Unread]:
    """Return those of the files that their names tell not to be read, by the stem that they would have as images.

    That is `a` of `a.nii.gz`, and of `.a.jpg.icloud`, which stands for a file that is not on the disk.
    """
    found = {}
    for name in names:
        image = name.removeprefix(".").removesuffix(".icloud")
        hidden = name.startswith(".") and image == name[1:]
        if not hidden and (text := told_by_name(name)):
            stem = image[: -len(".gz")] if image.lower().endswith(".nii.gz") else image
            found[Path(stem).stem] = Unread(name, text)
    return found


def _first_line(head: bytes) -> str:
    """Return the beginning of a text; empty if it is none."""
    text = head.decode("utf-8-sig", "replace").rstrip("\ufffd")  # it may end within a character
    is_text = all(each.isprintable() or each.isspace() for each in text) and "\ufffd" not in text
    return text.strip().partition("\n")[0].strip()[:40] if is_text else ""
