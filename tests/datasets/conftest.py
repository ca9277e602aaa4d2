"""Small datasets on disk: CIFAR in the format of its archive, folders of pictures."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_formats import python2_pickle, write
from torchvision.datasets import CIFAR10, CIFAR100

CLASSES = {CIFAR10: 10, CIFAR100: 100}
IMAGES_A_FILE = 100

WriteCifar = Callable[[type[CIFAR10], Path], dict[str, tuple[np.ndarray, list[int]]]]


@pytest.fixture
def write_cifar(monkeypatch: pytest.MonkeyPatch) -> WriteCifar:
    """Writes a small CIFAR below a folder and returns {split: (pixels [N, 3072], labels)}.

    torchvision knows the md5 sums of the real files; they are replaced by those of the files written here, so that
    the reading and the integrity check stay the real ones.
    """

    def write_set(kind: type[CIFAR10], root: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
        folder = root / kind.base_folder
        folder.mkdir(parents=True)
        rng = np.random.default_rng(7)
        written = {}
        for split, files in (("train", "train_list"), ("test", "test_list")):
            sums, pixels, labels = [], [], []
            for name, _ in getattr(kind, files):
                pixels.append(rng.integers(0, 256, (IMAGES_A_FILE, 3072), dtype=np.uint8))
                labels.append(rng.integers(0, CLASSES[kind], IMAGES_A_FILE).tolist())
                key = "labels" if kind is CIFAR10 else "fine_labels"
                sums.append([name, write(folder / name, python2_pickle({"data": pixels[-1], key: labels[-1]}))])
            monkeypatch.setattr(kind, files, sums)
            written[split] = np.concatenate(pixels), list(chain.from_iterable(labels))
        meta = {**kind.meta}
        names = [f"thing {klass}" for klass in range(CLASSES[kind])]
        meta["md5"] = write(folder / meta["filename"], python2_pickle({meta["key"]: names}))
        monkeypatch.setattr(kind, "meta", meta)
        return written

    return write_set


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes, 3 + 2 train and 1 + 2 test pictures of different shapes and colour modes."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(11)
    for place, suffix in (
        ("train/cat/b", "png"),
        ("train/cat/a", "jpg"),
        ("train/cat/c", "JPEG"),
        ("train/ant/z", "webp"),
        ("train/ant/y", "png"),
        ("test/cat/1", "png"),
        ("test/ant/2", "jpg"),
        ("test/ant/1", "png"),
    ):
        path = root / f"{place}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(20, 60, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return root
