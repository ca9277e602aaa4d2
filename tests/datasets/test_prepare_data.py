"""prepare-data turns archives into the folders that the datasets read: completely, once, and nowhere else."""

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import image_formats as formats

from coupled import prepare_data
from coupled.datasets.prepare import archives, parquet

IDS = formats.WORDNET_IDS


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*arguments: str | Path) -> int:
    return prepare_data.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("top", ["", "tiny-imagenet-200/"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_unpacked(kind: str, top: str, tmp_path: Path) -> None:
    """With or without a top folder; files added by macOS are skipped."""
    files = formats.tiny_imagenet_files()
    make = formats.write_zip if kind == "zip" else formats.write_tar
    archive = make(tmp_path / f"tiny.{kind}", {**files, "__MACOSX/x": b"fork", "val/.DS_Store": b"desktop"}, top)
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == files


def test_the_folder_of_a_single_class_is_kept(tmp_path: Path) -> None:
    """If it were removed as a top folder, the class would lose its name."""
    files = {"n01440764/a.JPEG": b"1", "n01440764/b.JPEG": b"2"}
    archive = formats.write_zip(tmp_path / "part.zip", files)
    assert run("mini_imagenet", archive, "--output", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == files


def test_lists_may_lie_beside_the_archive(tmp_path: Path) -> None:
    """mini-ImageNet's images and lists come from two places."""
    files = formats.mini_imagenet_files()
    lists = [name for name in files if name.endswith(".csv")]
    formats.write_files(tmp_path, {name: files[name] for name in lists})
    images = {name: content for name, content in files.items() if name not in lists}
    archive = formats.write_zip(tmp_path / "images.zip", images)
    assert run("mini_imagenet", archive, *(tmp_path / name for name in lists), "--output", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == files


@pytest.mark.parametrize("labels", ["devkit", "text"])
def test_imagenets_archives_become_class_folders(labels: str, tmp_path: Path) -> None:
    """The devkit has a separate numbering of classes; here it is the reverse of the order of names."""
    train, val, devkit = formats.imagenet_archives(tmp_path / "archives")
    wordnet_ids = [*reversed(IDS)] * formats.TEST_IMAGES
    if labels == "text":
        devkit = tmp_path / "labels.txt"
        devkit.write_text("\n".join(wordnet_ids))
    assert run("imagenet", train, val, devkit, "--output", tmp_path / "out") == 0
    expected = {f"train/{IDS[c]}/{name}": data for c in range(4) for name, data in formats.of_class(c, formats.IMAGES)}
    for number, wordnet_id in enumerate(wordnet_ids, start=1):
        expected[f"val/{wordnet_id}/ILSVRC2012_val_{number:08d}.JPEG"] = formats.jpeg(9000 + number, 50, 80)
    assert tree(tmp_path / "out") == expected


def test_parquet_becomes_class_folders_over_all_its_files(tmp_path: Path) -> None:
    """Rows are numbered across files; otherwise the second file would overwrite the first."""
    assert run("tiny_imagenet", formats.write_parquet(tmp_path / "hub"), "--output", tmp_path / "out") == 0
    files = tree(tmp_path / "out")
    assert len(files) == (formats.IMAGES + 2) * len(IDS)
    assert files[f"train/{IDS[0]}/0000000.jpg"] == formats.jpeg(0)
    assert files[f"train/{IDS[1]}/0000013.jpg"] == formats.jpeg(101)
    assert files[f"val/{IDS[3]}/0000007.jpg"] == formats.jpeg(207)


@pytest.mark.parametrize("label", [None, -1, 4])
def test_an_image_without_a_label_is_refused(label: int | None) -> None:
    """Hugging Face marks those of ImageNet's test split with -1, which Python would take for the last class."""
    with pytest.raises(
        ValueError, match=r"test-0.parquet: image 7 of the split has no valid label .*; do not use this split"
    ):
        parquet._member(Path("test-0.parquet"), 7, formats.jpeg(0), label, IDS)


def test_class_names_become_folders_in_the_order_of_the_labels(tmp_path: Path) -> None:
    """Hugging Face's ImageNet has names such as "tench, Tinca tinca"; a slash in a name must not create a subfolder."""
    source = formats.write_parquet(tmp_path / "hub", names=("tench, Tinca tinca", "a/b", "../c", "crane"))
    assert run("imagenet", source, "--output", tmp_path / "out") == 0
    folders = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert folders == ["0000_tench_Tinca_tinca", "0001_a_b", "0002_c", "0003_crane"]


def test_an_interrupted_preparation_continues_and_the_folder_appears_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ImageNet takes an hour; an incomplete folder must not look complete."""
    files = formats.tiny_imagenet_files()
    archive = formats.write_zip(tmp_path / "tiny.zip", files)
    written: list[str] = []
    copy = shutil.copyfileobj

    def stops_in_a_file(content: object, file: object) -> None:
        written.append(file.name)
        if len(written) == 9:
            file.write(b"half")
            raise KeyboardInterrupt
        copy(content, file)

    monkeypatch.setattr(archives.shutil, "copyfileobj", stops_in_a_file)
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out") == 130
    assert not (tmp_path / "out").exists()
    (tmp_path / "out.partial" / "words.txt").write_bytes(b"")  # as a power cut may leave it
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == files
    assert len(written) == len(files) + 2  # only the half file and the empty one twice
    assert not (tmp_path / "out.partial").exists()
    archive.unlink()
    assert run("tiny_imagenet", formats.write_zip(archive, {"x": b"other"}), "--output", tmp_path / "out") == 0
    assert tree(tmp_path / "out") == files


@pytest.mark.parametrize(
    "name", ["../out.txt", "/tmp/coupled_out.txt", "train/../../out.txt", "c:/out.txt", "a\\..\\..\\out.txt"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_file_is_written_outside_the_folder(
    kind: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """An archive from a stranger must not overwrite the user's files."""
    make = formats.write_zip if kind == "zip" else formats.write_tar
    place = tmp_path / "inner"
    place.mkdir()
    assert run("tiny_imagenet", make(place / f"a.{kind}", {name: b"gotcha"}), "--output", place / "out") == 2
    assert "would be written outside" in capsys.readouterr().err
    assert not Path("/tmp/coupled_out.txt").exists()
    assert not list(tmp_path.rglob("out.txt"))


def _links(place: Path) -> Path:
    path = place / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("train")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)
    return path


def _cut_tar(place: Path) -> Path:
    path = formats.write_tar(place / "a.tar", formats.tiny_imagenet_files())
    path.write_bytes(path.read_bytes()[:30_001])
    return path


def _cut_between_files(place: Path) -> Path:
    """Truncate between two pictures at a multiple of 512 bytes, which tarfile takes for the end."""
    path = formats.write_tar(place / "a.tar", formats.tiny_imagenet_files())
    with tarfile.open(path) as archive:
        start = archive.getmembers()[5].offset
    path.write_bytes(path.read_bytes()[: start + 100])
    return path


def _bent_tar(place: Path) -> Path:
    """A header in the middle with a wrong checksum."""
    path = formats.write_tar(place / "a.tar", formats.tiny_imagenet_files())
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        content[archive.getmembers()[5].offset + 3] ^= 1
    path.write_bytes(content)
    return path


def _cut_class(place: Path) -> Path:
    """ImageNet's archive is complete; a class archive inside it is truncated."""
    whole = formats.write_tar(place / "n01440764.tar", dict(formats.of_class(0, 3))).read_bytes()
    with tarfile.open(place / "n01440764.tar") as archive:
        start = archive.getmembers()[2].offset
    return formats.write_tar(place / "a_train.tar", {"n01440764.tar": whole[:start]})


def _cut_gz(place: Path) -> Path:
    path = formats.write_tar(place / "a.tar.gz", formats.tiny_imagenet_files())
    path.write_bytes(path.read_bytes()[:30_001])
    return path


def _bent_zip(place: Path) -> Path:
    path = formats.write_zip(place / "a.zip", formats.tiny_imagenet_files())
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    return path


def _no_archive(place: Path) -> Path:
    (place / "a.zip").write_text("<html>not found</html>")
    return place / "a.zip"


def _empty(place: Path) -> Path:
    return formats.write_zip(place / "a.zip", {})


def _nowhere(place: Path) -> Path:
    return place / "a.zip"


def _no_split(place: Path) -> Path:
    source = formats.write_parquet(place / "hub") / "train-00000-of-00002.parquet"
    return source.rename(source.with_name("0000.parquet"))


def _no_second_file(place: Path) -> Path:
    source = formats.write_parquet(place / "hub")
    (source / "train-00000-of-00002.parquet").unlink()
    return source


def _no_parquet(place: Path) -> Path:
    (place / "train-0.parquet").write_text("<html>not found</html>")
    return place / "train-0.parquet"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_links, "'train' is a link or a device; only files are unpacked"),
        (_cut_tar, "damaged or cut off"),
        (_cut_between_files, "damaged or cut off"),
        (_bent_tar, "damaged or cut off"),
        (_cut_class, "damaged or cut off"),
        (_cut_gz, "damaged or cut off"),
        (_bent_zip, "damaged or cut off"),
        (_no_archive, "neither a zip nor a tar archive; fetch it again"),
        (_empty, "holds no file; fetch it again"),
        (_nowhere, "no such file"),
        (_no_split, "unknown split; the name of the file or its folder must begin with one of train,"),
        (_no_second_file, "hub: file 00000 of 2 of train is missing; fetch it too"),
        (_no_parquet, "not readable as parquet"),
    ],
)
def test_an_unusable_source_is_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Which file, and what to do; no folder is left that looks like a dataset."""
    name = "imagenet" if make is _cut_class else "tiny_imagenet"
    assert run(name, make(tmp_path), "--output", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert all(path.startswith("train.partial/") for path in tree(tmp_path / "out"))


def _changed_size(place: Path, content: bytes, **changed: int) -> Path:
    """A tar archive whose last header is changed."""
    info = tarfile.TarInfo("a.jpg")
    info.size = changed.get("size", 1)
    info.type = bytes([changed.get("kind", tarfile.REGTYPE[0])])
    (place / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(2 * 512 - len(content)))
    return place / "a.tar"


def _below_zero(place: Path) -> Path:
    """tarfile goes back to the header, again and again."""
    return _changed_size(place, b"", size=-512)


def _long_name(place: Path) -> Path:
    """tarfile reads a name of any length into memory; gigabytes of it compress to a few bytes."""
    return formats.write_tar(place / "a.tar.gz", {"x" * 2**21: b"1"})


def _pax(place: Path, **headers: str) -> Path:
    with tarfile.open(place / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {key.replace("_", "."): value for key, value in headers.items()}
        archive.addfile(info, io.BytesIO())
    return place / "a.tar"


def _sparse(place: Path) -> Path:
    """A sparse file: a petabyte of zeros from a few bytes."""
    return _pax(place, GNU_sparse_map="0,1", GNU_sparse_size=str(2**50))


def _no_name(place: Path) -> Path:
    return _pax(place, path="")


def _nul_name(place: Path) -> Path:
    return _pax(place, path="a\0b")


def _long_file_name(place: Path) -> Path:
    return formats.write_tar(place / "a.tar", {"x" * 5000: b""})


def _file_and_folder(place: Path) -> Path:
    return formats.write_zip(place / "a.zip", {"a": b"1", "a/b": b"2"})


def _bent_sum_of_gz(place: Path) -> Path:
    """A wrong checksum at the end of the .gz file, after the end of the tar archive."""
    path = formats.write_tar(place / "a.tar.gz", formats.tiny_imagenet_files())
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    return path


def _zip_with(place: Path, places: dict[bytes, int], value: bytes) -> Path:
    """A zip archive with other bytes at these places of its local and of its central headers."""
    path = formats.write_zip(place / "a.zip", {"a.jpg": b"1"})
    content = bytearray(path.read_bytes())
    for mark, place_in in places.items():
        start = content.index(mark) + place_in
        content[start : start + len(value)] = value
    path.write_bytes(content)
    return path


def _encrypted(place: Path) -> Path:
    return _zip_with(place, {b"PK\3\4": 6, b"PK\1\2": 8}, b"\1")


def _other_method(place: Path) -> Path:
    return _zip_with(place, {b"PK\3\4": 8, b"PK\1\2": 10}, b"\x63\0")


def _other_version(place: Path) -> Path:
    return _zip_with(place, {b"PK\1\2": 6}, b"\x63")


def _empty_zip_name(place: Path) -> Path:
    return _zip_with(place, {b"PK\3\4": 30, b"PK\1\2": 46}, b"\0")


def _zip_bomb(place: Path) -> Path:
    return _zip_with(place, {b"PK\1\2": 24}, b"\xfe\xff\xff\xff")


def _tar_bomb(place: Path) -> Path:
    return _changed_size(place, b"1", size=2**40)


def _pipe(place: Path) -> Path:
    os.mkfifo(place / "a.zip")
    return place / "a.zip"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_below_zero, "neither a zip nor a tar archive"),
        (_long_name, "neither a zip nor a tar archive"),
        (_sparse, "'a.jpg' is sparse; only files are unpacked"),
        (_no_name, "'' is not a file name; this is not the original file"),
        (_nul_name, r"'a\x00b' is not a file name"),
        (_long_file_name, "xxx...' is not a file name"),
        (_file_and_folder, "'a/b' is both a file and a folder; delete "),
        (_bent_sum_of_gz, "damaged or cut off (CRC check failed"),
        (_encrypted, "'a.jpg' is encrypted; only plain and deflated files are unpacked"),
        (_other_method, "'a.jpg' is compressed by method 99; only plain"),
        (_other_version, "damaged or cut off (zip file version 9.9)"),
        (_empty_zip_name, "'' is not a file name; this is not the original file"),
        (_zip_bomb, "unpacks to more than 2 GiB; to allow it, set a larger --max-gib"),
        (_tar_bomb, "unpacks to more than 2 GiB; to allow it, set a larger --max-gib"),
        (_pipe, "a.zip: not a regular file; leave it out"),
    ],
)
def test_a_malicious_archive_is_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """No traceback, no endless loop, no more memory or disk space than the dataset needs."""
    assert run("tiny_imagenet", make(tmp_path), "--output", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("features", [b"{", b"[]", b'{"info": 3}', b"[" * 100_000, "names", "words", "twice", "column"])
def test_parquet_files_without_an_image_dataset_are_one_line(
    features: bytes | str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Their metadata may contain anything."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = formats.write_parquet(tmp_path / "hub") / "validation-00000-of-00001.parquet"
    table = parquet.read_table(path)
    noted = json.loads(table.schema.metadata[b"huggingface"])
    label = noted["info"]["features"]["label"]
    if isinstance(features, str):
        names = {"names": None, "words": "abcd", "twice": [IDS[0]] * 4, "column": list(IDS)}[features]
        label["names"] = names
        features, known = json.dumps(noted).encode(), features
        table = table.drop_columns("image") if known == "column" else table
    parquet.write_table(table.replace_schema_metadata({"huggingface": features}), path)
    assert run("tiny_imagenet", path, "--output", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "validation-00000-of-00001.parquet: not an image-classification dataset: " in said
    assert said.count("\n") == 1


def test_files_of_a_damaged_archive_are_deleted(tmp_path: Path) -> None:
    """A wrong pixel would be trained on without an error; a wrong name would add a class."""
    files = formats.tiny_imagenet_files()
    good = formats.write_tar(tmp_path / "good.tar", files)
    content = bytearray(good.read_bytes())
    with tarfile.open(good) as archive:
        members = archive.getmembers()
    first = members[2].offset_data
    content[first + 50] ^= 1  # a picture
    content[members[12].offset + 3] ^= 1  # the header at which the archive is found to be damaged
    (tmp_path / "bad.tar").write_bytes(content)
    out = tmp_path / "out"
    assert run("tiny_imagenet", tmp_path / "bad.tar", "--output", out) == 2
    assert (tmp_path / "out.partial" / members[2].name).stat().st_size == members[2].size
    formats.write(tmp_path / "out.partial/train/n09999999/images/stray.JPEG", b"of a bent name")
    assert run("tiny_imagenet", good, "--output", out) == 0
    assert tree(out) == files
    assert not (out / "train/n09999999").exists()


def test_the_size_limit_can_be_raised_and_the_disk_is_never_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs every program on the machine its data."""
    archive = formats.write_tar(tmp_path / "a.tar", {"a.jpg": bytes(3000)})
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out", "--max-gib", "1e-6") == 2
    assert "a.tar: unpacks to more than 9.99309e-07 GiB" in capsys.readouterr().err
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out", "--max-gib", "0") == 2
    assert "--max-gib: got '0'; a number above 0 is allowed" in capsys.readouterr().err
    usage = SimpleNamespace(free=archives.LEFT_FREE + 2999)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out") == 1
    assert "3,000 bytes needed, 268,438,455 bytes free, 268,435,456 of them are kept free" in capsys.readouterr().err
    usage.free += 1
    assert run("tiny_imagenet", archive, "--output", tmp_path / "out") == 0


def test_without_pyarrow_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The extra is not installed by default."""
    source = formats.write_parquet(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run("tiny_imagenet", source, "--output", tmp_path / "out") == 2
    assert "pip install pyarrow" in capsys.readouterr().err


def test_imagenet_refuses_numeric_labels_and_unknown_archives(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The devkit's ground truth has numbers: folders with these names would match no class of train."""
    train, val, _ = formats.imagenet_archives(tmp_path)
    labels = tmp_path / "truth.txt"
    labels.write_text("\n".join(["490"] * 8))
    assert run("imagenet", val, labels, "--output", tmp_path / "out") == 2
    assert "truth.txt: '490' is not a WordNet id such as n01440764" in capsys.readouterr().err
    other = train.with_name("bounding_boxes.tar")
    other.write_bytes(train.read_bytes())
    assert run("imagenet", train, other, "--output", tmp_path / "out") == 2
    assert "bounding_boxes.tar: its name is not that of an ILSVRC2012 archive" in capsys.readouterr().err
    assert not {"train", "val"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_validation_images_need_their_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without labels they cannot be sorted into classes."""
    _, val, devkit = formats.imagenet_archives(tmp_path)
    assert run("imagenet", val, "--output", tmp_path / "out") == 2
    assert "ILSVRC2012_devkit_t12.tar.gz; give this file too" in capsys.readouterr().err
    labels = tmp_path / "few.txt"
    labels.write_text(" ".join(IDS))
    assert run("imagenet", val, labels, "--output", tmp_path / "out") == 2
    assert "is not one of the 4 images" in capsys.readouterr().err
    assert run("imagenet", devkit, "--output", tmp_path / "out") == 2
