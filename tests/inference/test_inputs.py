"""Which images an input names, and the names of their results."""

import os
from collections import Counter
from pathlib import Path

import pytest

from segtune.data.file_formats import EXTENSIONS
from segtune.errors import UserError
from segtune.inference.inputs import Source, find_images, find_video, left_out, unique_names


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.png").touch()
    (tmp_path / "in" / "sub" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").touch()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    assert [source.name for source in find_images(str(tmp_path / "in"))] == ["linked/b", "sub/a"]
    assert [source.name for source in find_images(f"{tmp_path}/in/**/*.png")][-1] == "sub/a"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
        (["a.jpg", "a.png", "a.png.jpg"], ["a.jpg", "a.png", "a.png.jpg"]),
        (["a.bmp", "a.png/b.bmp"], ["a.bmp", "a.png/b"]),
        (["x/a.bmp", "x/A.JPG/y/b.bmp"], ["x/a.bmp", "x/A.JPG/y/b"]),
        (["a.bmp", "a/b.bmp"], ["a", "a/b"]),
    ],
)
def test_results_have_names_of_their_own(paths: list[str], names: list[str]) -> None:
    assert unique_names(map(Path, paths)) == names


def test_what_systems_leave_in_folders_is_no_image(tmp_path: Path) -> None:
    junk = ("@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", "__MACOSX/b.jpg", "Thumbs.db", "a.jpg:Zone.Identifier", ".c.jpg")
    for name in ("a.jpg", *junk):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for text in (str(tmp_path), f"{tmp_path}/**"):
        others = Counter[str]()
        assert [source.name for source in find_images(text, others=others)] == ["a"]
        assert not others


def test_patterns(tmp_path: Path) -> None:
    for name in ("a.jpg", "x/b.jpg", "x/y/c.JPG", "x/d.txt", "x/.e.jpg", ".z/f.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(pattern: str) -> list[str]:
        return [source.name for source in find_images(f"{tmp_path}/{pattern}")]

    assert names("*") == ["a"]
    assert names("x/*") == ["b"]
    assert names("**/*.jpg") == ["a", "x/b"]
    assert names("**") == ["a", "x/b", "x/y/c"]
    assert names("x/**/*.[jJ]*") == ["b", "y/c"]
    assert find_images(str(tmp_path / "x" / ".e.jpg"))[0].name == ".e"  # asked for by name


def test_what_counts_as_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.MP4").touch()
    assert find_video(str(tmp_path / "a.MP4")) == tmp_path / "a.MP4"
    assert find_video(str(tmp_path / "b.mp4")) is None
    assert find_video(str(tmp_path)) is None
    assert find_video("camera:12") == 12


def test_a_camera_without_a_number_is_refused() -> None:
    with pytest.raises(UserError) as error:
        find_video("camera:front")
    assert str(error.value) == "input=camera:front: expected a camera by its number, such as camera:0."


def test_folders_of_results_are_skipped_unless_asked_for(tmp_path: Path) -> None:
    for name in ("a.png", "out/masks/a.png", "out/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    own = [tmp_path / "out" / "masks"]
    assert [source.name for source in find_images(str(tmp_path), own=own)] == ["a", "out/b"]
    assert [source.name for source in find_images(f"{tmp_path}/**/*.png", own=own)] == ["a", "out/b"]
    assert [source.path for source in find_images(str(own[0]), own=own)] == [own[0] / "a.png"]


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    names = ("a.png", "b.XYZ", "c.xyz", "d.txt", "README", ".hidden", "desktop.ini", "out/masks/a.txt", ".e.jpg.icloud")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    others = Counter[str]()
    find_images(str(tmp_path), own=[tmp_path / "out" / "masks"], others=others)
    assert others == {".xyz": 2, ".txt": 1, "": 1, ".icloud": 1}
    assert left_out(others) == (
        "5 files left out: 1 .icloud, 1 .txt, 2 .xyz, 1 without extension. .icloud: a placeholder of iCloud for a file "
        "that is not on this disk; download it in the Finder."
    )
    assert left_out({".txt": 1}) == "1 file left out: 1 .txt."
    assert left_out({".jxl": 1, ".mov": 2}) == (
        "3 files left out: 1 .jxl, 2 .mov. .jxl: a JPEG XL image, which is not read; convert it: `djxl FILE.jxl "
        "FILE.png` (libjxl). .mov: a video: `predict` takes it alone, as input=FILE; for other uses save frames: "
        "`ffmpeg -i FILE NAME_%06d.png`."
    )


def test_every_format_that_is_read_is_found(tmp_path: Path) -> None:
    for number, ending in enumerate(sorted(EXTENSIONS)):
        (tmp_path / f"{number:02}{ending.upper()}").touch()
    found = find_images(str(tmp_path), others=(others := Counter[str]()))
    assert [source.path.suffix.lower() for source in found] == sorted(EXTENSIONS)
    assert not others


def test_a_gif_is_a_video_alone_and_an_image_among_others(tmp_path: Path) -> None:
    (tmp_path / "a.gif").touch()
    assert find_video(str(tmp_path / "a.gif")) == tmp_path / "a.gif"
    for text in (str(tmp_path), f"{tmp_path}/*.gif"):
        assert find_video(text) is None
        assert [source.name for source in find_images(text)] == ["a"]


@pytest.mark.parametrize("text", ["", " "])
def test_nothing_is_not_the_current_folder(text: str) -> None:
    with pytest.raises(UserError, match=r"^input is empty\. Expected a photo, a folder"):
        find_images(text)


def test_names_stay_unique_for_all_small_sets_of_files() -> None:
    """The property itself, not examples: no two results share a name, whatever the case of their letters."""
    stems = ("a", "A", "a.png", "b")
    files = [Path(stem + extension) for stem in stems for extension in (".bmp", ".png", ".jpg")]
    for chosen in range(1, 2 ** len(files)):
        paths = [file for number, file in enumerate(files) if chosen >> number & 1]
        if len({str(path).casefold() for path in paths}) == len(paths):
            names = unique_names(paths)
            assert len({name.casefold() for name in names}) == len(paths), paths
            assert all(os.fspath(path).startswith(name) for path, name in zip(paths, names, strict=True))


def test_what_is_no_file_is_named_or_left_to_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.png").symlink_to("gone.png")
    for name, kind in {"pipe.png": "a named pipe", "pipe.mp4": "a named pipe", "link.png": "a link to nothing"}.items():
        assert find_video(str(tmp_path / name)) is None
        with pytest.raises(UserError) as caught:
            find_images(str(tmp_path / name))
        assert str(caught.value) == f"input={tmp_path / name}: it is {kind}, not a file."
    for text in (str(tmp_path), f"{tmp_path}/*.png"):  # which says what is wrong with each
        assert [source.name for source in find_images(text)] == ["link", "pipe"]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_several_inputs_name_each_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "one.jpg", "photos/b.png", "photos/x/a.jpg", "more/c.png", "more/d.jpg", "more/e.txt")
    found = find_images(["one.jpg", "photos", "more/*.png", "photos/x/a.jpg", "./more/../photos"])
    assert [str(source.path) for source in found] == ["one.jpg", "photos/b.png", "photos/x/a.jpg", "more/c.png"]
    assert [source.name for source in found] == ["one", "b", "x/a", "c"]
    assert [source.file for source in found] == ["one.jpg", "b.png", "x/a.jpg", "c.png"]
    others = Counter[str]()
    find_images(["photos", "more"], others=others)
    assert others == {".txt": 1}
    assert Source(Path("photos/b.png"), "b").file == "b.png"


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["mon", "tue"], ["mon/a", "mon/b", "tue/a"]),
        (["mon/a.jpg", "tue/a.jpg"], ["mon/a", "tue/a"]),
        (["mon", "tue/*.jpg", "wed"], ["mon/a", "mon/b", "tue/a", "wed/A"]),
        (["mon", "wed"], ["mon/a", "mon/b", "wed/A"]),  # some file systems ignore case
        (["mon/b.png", "tue"], ["b", "a"]),
        (["mon/b.png", "thu"], ["b.png", "b.jpg"]),  # as in one folder
    ],
)
def test_names_are_unique_across_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "mon/a.jpg", "mon/b.png", "tue/a.jpg", "wed/A.jpg", "thu/b.jpg")
    assert [source.name for source in find_images(inputs)] == names


def test_a_list_names_inputs_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the current folder or else from the list's."""
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "here/a.jpg", "lists/b.jpg", "lists/sub/c.png", "lists/sub/d.jpg")
    lines = "here/a.jpg\r\n\r\n  b.jpg \nsub/*.png\nsub\n"
    (tmp_path / "lists" / "new.TXT").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found = find_images(str(Path("lists", "new.TXT")))
    assert [source.path.as_posix() for source in found] == [
        *("here/a.jpg", "lists/b.jpg", "lists/sub/c.png", "lists/sub/d.jpg")
    ]
    assert [source.name for source in found] == ["a", "b", "c", "d"]
    assert len(find_images(["lists/new.TXT", "here"])) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg\nnowhere.jpg\n", "list.txt, line 2: nowhere.jpg: no such file or folder. Expected a photo, a folder, "),
        ("\n\n", "input=list.txt: the list is empty. Expected a photo, a folder or a pattern in each line."),
        ("*.bmp\n", "list.txt, line 1: *.bmp: no images found that match. Expected files that end in "),
        (b"\xff\xfe", "input=list.txt: the list cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: "),
    ],
)
def test_a_list_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        find_images("list.txt")
    assert str(error.value).startswith(message)


def test_a_video_is_predicted_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.mp4", "b.jpg")
    assert find_video(["a.mp4"]) == Path("a.mp4")
    assert find_video(["b.jpg", "b.jpg"]) is None
    with pytest.raises(UserError) as error:
        find_video(["b.jpg", "a.mp4"])
    assert str(error.value) == "input: a.mp4 is a video or a camera, which is predicted alone: input=a.mp4"
