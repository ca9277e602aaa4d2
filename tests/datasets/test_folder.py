"""Pictures from folders, one folder for each class."""

import contextlib
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support import image_formats as formats
from torchvision.datasets import ImageFolder

from coupled.datasets import _files, channel_statistics, imagenet
from coupled.datasets import _pictures as module
from coupled.datasets._pillow import read_picture, undecodable
from coupled.datasets.folder import load, own_size


def read_alone(path: Path, size: int) -> torch.Tensor:
    """Read one picture by itself."""
    (image_3SS,), _ = module.read([path], size)
    return image_3SS


def test_classes_and_images_come_in_the_order_of_their_names(pictures: Path) -> None:
    """The order of a folder's files differs between disks; a label or an index must not."""
    found = load("train", root=pictures, image_size=20)
    assert found.class_names == ("ant", "cat")
    assert found.labels_N.tolist() == [0, 0, 1, 1, 1]
    expected = ["ant/y.png", "ant/z.webp", "cat/a.jpg", "cat/b.png", "cat/c.JPEG"]
    for image, name in zip(found.images_N3HW, expected, strict=True):
        alone = read_alone(pictures / "train" / name, 20)
        assert torch.equal(image, alone)


def test_the_central_square_is_read_without_distortion(tmp_path: Path) -> None:
    """A stretched picture, or one cut at the edge, would differ from the user's picture."""
    wide_HW3 = np.zeros((16, 48, 3), np.uint8)
    wide_HW3[:, 16:32] = (10, 200, 90)
    path = tmp_path / "wide.png"
    Image.fromarray(wide_HW3).save(path)
    assert torch.equal(read_alone(path, 16), torch.from_numpy(wide_HW3[:, 16:32]).permute(2, 0, 1))
    shrunk_388 = read_alone(path, 8)
    assert torch.equal(
        shrunk_388[:, :, 2:6], torch.tensor([10, 200, 90], dtype=torch.uint8)[:, None, None].expand(3, 8, 4)
    )


def test_grey_palette_and_rotated_pictures_become_upright_rgb(tmp_path: Path) -> None:
    """Cameras store the orientation as EXIF data; scanners store one channel."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    image_388 = read_alone(tmp_path / "grey.png", 8)
    assert np.array_equal(image_388.numpy(), np.stack([grey] * 3))

    turned = Image.fromarray(grey)
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_alone(tmp_path / "turned.png", 8)[0].numpy(), grey[::-1, ::-1])

    Image.fromarray(np.stack([grey] * 3, axis=2)).quantize(64).save(tmp_path / "palette.png")
    assert np.array_equal(read_alone(tmp_path / "palette.png", 8)[0].numpy(), grey)


def test_val_is_the_test_split_if_there_is_no_test_folder(pictures: Path) -> None:
    """ImageNet's folders are called train and val."""
    test = load("test", root=pictures, image_size=20)
    (pictures / "test").rename(pictures / "val")
    assert load("test", root=pictures, image_size=20).digest() == test.digest()


def test_mean_and_std_of_many_images_use_evenly_spaced_images(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both splits must measure the same images, from early and late classes."""
    monkeypatch.setattr(module, "STATISTICS_IMAGES", 2)
    train, test = load("train", root=pictures, image_size=20), load("test", root=pictures, image_size=20)
    assert (train.mean, train.std) == channel_statistics(train.images_N3HW[[0, 2]])
    assert (test.mean, test.std) == (train.mean, train.std)


def test_hidden_files_and_other_formats_are_skipped(pictures: Path) -> None:
    """Desktops put hidden files into every folder."""
    before = load("train", root=pictures, image_size=20).digest()
    (pictures / "train" / ".cache").mkdir()
    (pictures / "train" / "readme.txt").write_text("pictures of animals")
    (pictures / "train" / "cat" / ".b.png").write_bytes(b"resource")
    (pictures / "train" / "cat" / "Thumbs.db").write_bytes(b"thumbs")
    assert load("train", root=pictures, image_size=20).digest() == before


def test_the_images_equal_those_of_torchvision_image_folder(pictures: Path) -> None:
    """A class that is read only in part is another dataset; skipped files are named and counted."""
    cat = pictures / "train" / "cat"
    for name in ("a/x.png", "a/b/y.jpg", "images/z.png", "u.BMP", "v.tif", "w.tiff", "x.ppm", "y.pgm", "z.JPG"):
        path = cat / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 24), len(name)).save(path)
    for name in ("moving.gif", "images/notes.txt", "images/more.txt", ".hidden.png"):
        (cat / name).write_bytes(b"")
    (pictures / "train" / "readme.txt").write_text("pictures of animals")
    (pictures / "linked").mkdir()
    Image.new("RGB", (30, 24)).save(pictures / "linked" / "far.png")
    (cat / "link").symlink_to(pictures / "linked")
    found = load("train", root=pictures, image_size=20)
    expected = [path for path, _ in ImageFolder(str(pictures / "train")).samples if "/." not in path]
    assert sorted(str(pictures / file) for file in found.files_N) == sorted(expected)
    assert found.labels_N.bincount().tolist() == [2, 13]
    assert [Path(file) for file in found.files_N] == sorted(Path(file) for file in found.files_N)
    assert found.notes == (
        f"dataset: train: 15 images in 2 class folders of {pictures}/train: ant 2, cat 13",
        "dataset: train: ignored 2 .txt, 1 .gif, 1 .txt beside the classes, 1 hidden; images are files that end"
        " in .jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff, .webp",
    )


def test_the_default_image_size_is_the_common_size_of_the_pictures(tmp_path: Path) -> None:
    """Pictures of 32 px enlarged to 64 px need four times the memory and have no more information."""
    for place in ("train/a/1", "train/b/2", "test/a/3", "test/b/4"):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 40)).save(path)
    assert own_size(root=tmp_path) == 32
    found = load("train", root=tmp_path)
    assert found.images_N3HW.shape[2:] == (32, 32)
    assert len(found.notes) == 1
    Image.new("RGB", (200, 90)).save(tmp_path / "test/b/4.png")
    assert own_size(root=tmp_path) == 64
    assert load("train", root=tmp_path).notes[1:] == (
        "dataset.image_size: 2 of 2 train images are enlarged to 64 px; their shorter side is 32 px or more",
    )


def test_all_bad_pictures_are_reported_together(pictures: Path) -> None:
    """Repairing one, restarting and finding the next would take a day."""
    for number in range(5):
        (pictures / "train" / "cat" / f"bad{number}.png").write_text("a text")
    with pytest.raises(ValueError, match=r"^5 images cannot be decoded: .*bad0.*bad1.*bad2.png: .*; and 2 more$"):
        load("train", root=pictures, image_size=20)


def test_a_known_layout_without_class_folders_is_named(tmp_path: Path) -> None:
    """The message names the layout, not a class that only one split has."""
    formats.write_files(tmp_path / "tiny", formats.tiny_imagenet_files())
    with pytest.raises(ValueError, match=r"is Tiny ImageNet, whose .*; use dataset.name=tiny_imagenet"):
        load("train", root=tmp_path / "tiny")
    kaggle = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC"
    formats.write(tmp_path / "kaggle/LOC_val_solution.csv", "ImageId,PredictionString")
    for name, count in (("train/n01440764/a", 2), ("val/ILSVRC2012_val_", 3), ("test/ILSVRC2012_test_", 4)):
        for number in range(count):
            formats.write(kaggle / f"{name}{number}.JPEG", formats.jpeg(number))
    listed = (
        r"val contains 3 images outside class folders, as Kaggle's .*/kaggle/LOC_val_solution.csv lists their classes"
    )
    for read in (load, imagenet.load):
        with pytest.raises(ValueError, match=r"dataset.root: got .*; the image folders are below it: use .*/CLS-LOC"):
            read("train", root=tmp_path / "kaggle")
        with pytest.raises(ValueError, match=listed):
            read("train", root=kaggle)
    shutil.rmtree(kaggle / "val")
    formats.write(kaggle / "val/n01440764/b.JPEG", formats.jpeg(9))
    with pytest.raises(ValueError, match=r"test contains 4 images outside class folders, .*; rename it and put"):
        load("train", root=kaggle)
    assert len(imagenet.load("test", root=kaggle)) == 1


def _no_root(root: Path) -> None:
    shutil.rmtree(root)


def _no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def _no_class(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def _empty_class(root: Path) -> None:
    (root / "train" / "dog" / "inner").mkdir(parents=True)
    for name in ("1.gif", "inner/2.GIF"):
        (root / "train" / "dog" / name).write_bytes(b"GIF89a")


def _loose_images(root: Path) -> None:
    _no_class(root)
    Image.new("RGB", (9, 9)).save(root / "train" / "a.png")


def _not_utf8(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root / "train") + b"/caf\xe9")).mkdir()


def _fifo(root: Path) -> None:
    os.mkfifo(root / "train" / "cat" / "pipe.png")


def _broken_link(root: Path) -> None:
    (root / "train" / "cat" / "link.png").symlink_to("nowhere.png")


def _ring(root: Path) -> None:
    (root / "train" / "cat" / "inner").mkdir()
    (root / "train" / "cat" / "inner" / "again").symlink_to(root / "train" / "cat")


def _other_classes(root: Path) -> None:
    (root / "test" / "cat").rename(root / "test" / "cow")


def _cut_file(root: Path) -> None:
    path = root / "train" / "cat" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])


def _cut_png(root: Path) -> None:
    path = root / "train" / "cat" / "b.png"
    path.write_bytes(path.read_bytes()[:-400])


def _bent_header(root: Path) -> None:
    path = root / "train" / "cat" / "b.png"
    content = bytearray(path.read_bytes())
    content[11] ^= 1  # the length of the first chunk: Pillow raises ValueError
    path.write_bytes(content)


def _bent_chunk(root: Path) -> None:
    path = root / "train" / "cat" / "b.png"
    header, pixels = path.read_bytes()[:33], path.read_bytes()[41:]
    half = b"IDAT" + pixels[:200]
    chunk = struct.pack(">I", 200) + half + struct.pack(">I", zlib.crc32(half))
    path.write_bytes(header + chunk + b"\0\0\0\0\x1f0\xebN")  # a chunk without a proper name: SyntaxError


def _no_picture(root: Path) -> None:
    (root / "train" / "cat" / "b.png").write_text("a text")


def _sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((30, 30), 40000, np.uint16)).save(root / "train" / "cat" / "b.png")


@pytest.mark.parametrize(
    ("harm", "place", "message"),
    [
        (_no_root, "train", "no folder .*; put <class>/<image> files in it"),
        (_no_test, "test", "no folder"),
        (_no_class, "train", "contains no class folder; make one folder of images per class"),
        (_loose_images, "train", "train has no class folders, but test has; set dataset.labels=none"),
        (_not_utf8, "train", r"class folder b'.*/caf\\xe9' has a name that is not UTF-8; rename it"),
        (_fifo, "train/cat/pipe.png", "not a regular file; remove it"),
        (_broken_link, "train/cat/link.png", "not a regular file; remove it"),
        (_ring, "train/cat/inner/again", "a link to a folder that contains it; remove the link"),
        (_empty_class, "train/dog", r"contains no image, but 2 .gif; put .jpg, .jpeg, .png, .* files in it"),
        (_other_classes, "", "train and test must have the same classes; only one of them has cat, cow"),
        (_cut_file, "train/cat/a.jpg", "not a readable image .*; repair or remove it"),
        (_cut_png, "train/cat/b.png", "not a readable image .*; repair or remove it"),
        (_bent_header, "train/cat/b.png", "not a readable image .*; repair or remove it"),
        (_bent_chunk, "train/cat/b.png", "not a readable image .*; repair or remove it"),
        (_no_picture, "train/cat/b.png", "not a readable image .*; repair or remove it"),
        (_sixteen_bits, "train/cat/b.png", "more than 8 bits .*; save it with 8 bits a channel"),
    ],
)
def test_a_fault_in_a_folder_is_one_line_with_the_path(
    harm: Callable[[Path], None], place: str, message: str, pictures: Path
) -> None:
    """Among a million files the user must learn which one to repair."""
    harm(pictures)
    with pytest.raises(ValueError, match=message) as raised:
        load("train", root=pictures, image_size=20)
    assert str(pictures / place).removesuffix("/train") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_class_name_in_utf8_is_recognised_in_an_ascii_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice to rename the folder would be wrong; the locale must change."""
    name = "\u00e4".encode().decode("ascii", errors="surrogateescape")
    entry = SimpleNamespace(name=name, is_dir=lambda: True)
    monkeypatch.setattr(os, "scandir", lambda folder: contextlib.nullcontext([entry]))
    monkeypatch.setattr(os, "fsencode", lambda path: os.fspath(path).encode("ascii", errors="surrogateescape"))
    with pytest.raises(ValueError, match="has a name in UTF-8, which this locale does not read; set PYTHONUTF8=1"):
        _files.folders(Path("train"))


def test_the_root_folder_is_required() -> None:
    """There is no default place for a user's pictures."""
    with pytest.raises(ValueError, match=r"dataset.root: missing"):
        load("train")


@pytest.mark.parametrize(("wide", "high"), [(1, 100_000_000), (65_536, 1), (20_000, 20_000)])
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(wide: int, high: int, tmp_path: Path) -> None:
    """1 x 100 000 000 pixels are 400 MB, and 77 GB after resizing to a width of 8 px."""
    path = claiming(tmp_path / "long.png", wide, high)
    with pytest.raises(ValueError, match=rf"{wide} x {high} pixels; allowed are 89,478,485, and 65,535 per side"):
        read_picture(path)


def test_a_long_picture_is_cropped_before_it_is_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1 x 65 535 pixels only the middle is used; all of it at 64 px would need 800 MB."""
    path = tmp_path / "long.png"
    Image.new("RGB", (1, 65_535), (10, 200, 90)).save(path)
    seen: list[tuple[int, ...]] = []
    resize = module.resize
    monkeypatch.setattr(module, "resize", lambda image, *a, **k: (seen.append(image.shape), resize(image, *a, **k))[1])
    assert read_alone(path, 64).unique().tolist() == [10, 90, 200]
    assert seen == [(3, 16, 1)]


def claiming(path: Path, wide: int, high: int) -> Path:
    """A PNG of 4 x 4 pixels whose header states other numbers."""
    Image.new("RGB", (4, 4)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", wide, high)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def test_only_the_listed_image_formats_are_decoded(tmp_path: Path) -> None:
    """Pillow has some forty decoders; a file called .png may be for any of them."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", "PCX")
    with pytest.raises(ValueError, match=r"a.png: not a readable image \(none of BMP, JPEG, PNG, PPM, TIFF, WEBP\)"):
        read_picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png: not a regular file; remove it"):
        read_picture(tmp_path / "b.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", [".bmp", ".jpg", ".png", ".ppm", ".tif", ".webp"])
def test_a_damaged_picture_is_pixels_or_one_line(suffix: str, tmp_path: Path) -> None:
    """Whichever byte is wrong, there is no traceback."""
    path, rng = tmp_path / f"a{suffix}", np.random.default_rng(3)
    Image.fromarray(formats.noise(1, 12, 15, 3)).save(path)
    whole = path.read_bytes()
    for number in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole))] if number % 5 == 0 else whole)
        for place in rng.integers(0, min(len(data), 300 if number % 2 else len(data)), 1 + number % 4):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        (fault,) = undecodable([path])
        assert not fault or (fault.startswith(f"{path}: ") and "\n" not in fault)
