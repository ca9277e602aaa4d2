"""Pictures from folders, one a class."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coupled.image_sets import _files as module
from coupled.image_sets import channel_statistics
from coupled.image_sets._pillow import read_picture
from coupled.image_sets.folder import load


def test_classes_and_images_come_in_the_order_of_their_names(pictures: Path) -> None:
    """The order of a folder's files differs between disks; a label or an index must not."""
    found = load("train", root=pictures, size=20)
    assert found.class_names == ("ant", "cat")
    assert found.labels_N.tolist() == [0, 0, 1, 1, 1]
    expected = ["ant/y.png", "ant/z.webp", "cat/a.jpg", "cat/b.png", "cat/c.JPEG"]
    for image, name in zip(found.images_N3HW, expected, strict=True):
        alone = module.read_square(pictures / "train" / name, 20)
        assert torch.equal(image, alone)


def test_the_centre_square_is_kept_and_the_proportions_are(tmp_path: Path) -> None:
    """A squeezed picture, or one cut at the edge, would be another picture than the user put there."""
    wide_HW3 = np.zeros((16, 48, 3), np.uint8)
    wide_HW3[:, 16:32] = (10, 200, 90)
    path = tmp_path / "wide.png"
    Image.fromarray(wide_HW3).save(path)
    assert torch.equal(module.read_square(path, 16), torch.from_numpy(wide_HW3[:, 16:32]).permute(2, 0, 1))
    shrunk_388 = module.read_square(path, 8)
    assert torch.equal(
        shrunk_388[:, :, 2:6], torch.tensor([10, 200, 90], dtype=torch.uint8)[:, None, None].expand(3, 8, 4)
    )


def test_grey_palette_and_turned_pictures_become_upright_rgb(tmp_path: Path) -> None:
    """Cameras store a turned picture with a note; scanners store one channel."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    image_388 = module.read_square(tmp_path / "grey.png", 8)
    assert np.array_equal(image_388.numpy(), np.stack([grey] * 3))

    turned = Image.fromarray(grey)
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(module.read_square(tmp_path / "turned.png", 8)[0].numpy(), grey[::-1, ::-1])

    Image.fromarray(np.stack([grey] * 3, axis=2)).quantize(64).save(tmp_path / "palette.png")
    assert np.array_equal(module.read_square(tmp_path / "palette.png", 8)[0].numpy(), grey)


def test_val_stands_in_for_a_missing_test_folder(pictures: Path) -> None:
    """ImageNet's folders are called train and val."""
    test = load("test", root=pictures, size=20)
    (pictures / "test").rename(pictures / "val")
    assert load("test", root=pictures, size=20).digest() == test.digest()


def test_mean_and_std_of_many_images_come_from_evenly_spaced_ones(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both splits must agree on which images are measured, and later classes must count as well as early ones."""
    monkeypatch.setattr(module, "STATISTICS_IMAGES", 2)
    train, test = load("train", root=pictures, size=20), load("test", root=pictures, size=20)
    assert (train.mean, train.std) == channel_statistics(train.images_N3HW[[0, 2]])
    assert (test.mean, test.std) == (train.mean, train.std)


def test_hidden_and_other_files_are_passed_over(pictures: Path) -> None:
    """Desktops leave files of their own in every folder."""
    before = load("train", root=pictures, size=20).digest()
    (pictures / "train" / ".cache").mkdir()
    (pictures / "train" / "readme.txt").write_text("pictures of animals")
    (pictures / "train" / "cat" / ".b.png").write_bytes(b"resource")
    (pictures / "train" / "cat" / "Thumbs.db").write_bytes(b"thumbs")
    assert load("train", root=pictures, size=20).digest() == before


def _no_root(root: Path) -> None:
    shutil.rmtree(root)


def _no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


def _no_class(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def _empty_class(root: Path) -> None:
    (root / "train" / "dog").mkdir()


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
        (_no_root, "train", "there is no folder .*; put <class>/<image> files in it"),
        (_no_test, "test", "there is no folder"),
        (_no_class, "train", "holds no class; make one folder of images a class"),
        (_empty_class, "train/dog", r"holds no image; put .png, .jpg, .jpeg, .webp files in it"),
        (_other_classes, "", "train and test must have the same classes; only one has cat, cow"),
        (_cut_file, "train/cat/a.jpg", "not a readable image .*; mend or remove it"),
        (_cut_png, "train/cat/b.png", "not a readable image .*; mend or remove it"),
        (_bent_header, "train/cat/b.png", "not a readable image .*; mend or remove it"),
        (_bent_chunk, "train/cat/b.png", "not a readable image .*; mend or remove it"),
        (_no_picture, "train/cat/b.png", "not a readable image .*; mend or remove it"),
        (_sixteen_bits, "train/cat/b.png", "more than 8 bits .*; save it with 8 bits a channel"),
    ],
)
def test_a_fault_in_the_folder_is_one_line_that_names_the_place(
    harm: Callable[[Path], None], place: str, message: str, pictures: Path
) -> None:
    """Among a million files the user must learn which one to mend."""
    harm(pictures)
    with pytest.raises(ValueError, match=message) as raised:
        load("train", root=pictures, size=20)
    assert str(pictures / place) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_folder_must_be_given() -> None:
    """There is no place where a user's own pictures lie by default."""
    with pytest.raises(ValueError, match=r"image_set.root: missing"):
        load("train")


def test_what_pillow_lets_through_is_one_line_too(tmp_path: Path) -> None:
    """A header that claims 30 000 x 30 000 pixels, and a broken EXIF, raise errors that are no OSError."""
    path = tmp_path / "large.png"
    Image.new("RGB", (4, 4)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 30000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"large.png: not a readable image \(Image size"):
        read_picture(path)
