"""CIFAR-10 and CIFAR-100 from torchvision's folder."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from coupled.datasets import cifar10, cifar100

BOTH = pytest.mark.parametrize(("module", "kind"), [(cifar10, CIFAR10), (cifar100, CIFAR100)])


@BOTH
def test_pixels_and_labels_equal_those_of_the_files(
    module: ModuleType, kind: type[CIFAR10], write_cifar: Callable, tmp_path: Path
) -> None:
    """A row has 1024 red, 1024 green and 1024 blue values; with swapped axes it would still look like a picture."""
    written = write_cifar(kind, tmp_path)
    for split, (pixels, labels) in written.items():
        found = module.load(split, root=tmp_path)
        assert np.array_equal(found.images_N3HW.numpy(), pixels.reshape(-1, 3, 32, 32))
        assert found.images_N3HW.is_contiguous()
        assert found.labels_N.tolist() == labels
        assert found.class_names[3] == "thing 3"


@BOTH
def test_missing_files_are_an_error_that_says_what_to_do(
    module: ModuleType, kind: type[CIFAR10], tmp_path: Path
) -> None:
    """The message names the folder and how to download CIFAR."""
    with pytest.raises(ValueError, match=r"dataset.root: .*dataset.download=true") as raised:
        module.load("train", root=tmp_path)
    assert str(tmp_path / kind.base_folder) in str(raised.value)
    assert kind.filename in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_damaged_byte_is_noticed(write_cifar: Callable, tmp_path: Path) -> None:
    """Otherwise damaged pixels would be trained on without an error."""
    write_cifar(CIFAR10, tmp_path)
    path = tmp_path / CIFAR10.base_folder / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no complete, undamaged CIFAR10"):
        cifar10.load("train", root=tmp_path)


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without internet access the message has the key and the address, not a traceback of urllib."""
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "nowhere" / CIFAR10.filename).as_uri())
    with pytest.raises(ValueError, match=r"dataset.download: downloading file:.* failed") as raised:
        cifar10.load("train", root=tmp_path, download=True)
    assert "\n" not in str(raised.value)


def test_existing_files_are_not_downloaded_again(
    write_cifar: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`download: true` may stay in a config."""
    write_cifar(CIFAR10, tmp_path)
    monkeypatch.setattr(CIFAR10, "url", "file:///nowhere")
    assert len(cifar10.load("test", root=tmp_path, download=True)) == 100
