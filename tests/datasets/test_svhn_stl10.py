"""SVHN and STL-10 from torchvision's formats."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat
from support import image_formats as formats

from coupled.datasets import stl10, svhn

STL10 = "stl10_binary"


def test_a_house_number_has_the_pixels_and_the_digit_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file calls the digit 0 ten, and has the number of the image as its last axis."""
    formats.svhn(tmp_path, monkeypatch)
    for split in ("train", "test"):
        file = loadmat(tmp_path / f"{split}_32x32.mat")
        found = svhn.load(split, root=tmp_path)
        assert found.labels_N.tolist() == (file["y"][:, 0] % 10).tolist()
        assert np.array_equal(found.images_N3HW[7].numpy(), file["X"][:, :, :, 7].transpose(2, 0, 1))


def test_an_image_of_stl10_is_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files store columns, not rows; without a transpose, pictures would be rotated and mirrored."""
    formats.stl10(tmp_path, monkeypatch)
    folder = tmp_path / "stl10_binary"
    content = np.fromfile(folder / "test_X.bin", np.uint8)
    found = stl10.load("test", root=tmp_path)
    for image, channel, row, column in ((0, 0, 0, 1), (3, 2, 95, 17)):
        place = ((image * 3 + channel) * 96 + column) * 96 + row
        assert found.images_N3HW[image, channel, row, column] == content[place]
    assert found.labels_N.tolist() == [*range(10)] * 2
    assert not (folder / "unlabeled_X.bin").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [(svhn, "test_32x32.mat"), (stl10, f"{STL10}/train_X.bin"), (stl10, f"{STL10}/test_y.bin")],
)
def test_one_damaged_byte_is_noticed(
    module: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise damaged pixels would be trained on without an error."""
    formats.svhn(tmp_path, monkeypatch)
    formats.stl10(tmp_path, monkeypatch)
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="no complete, undamaged"):
        module.load("test", root=tmp_path)
