"""Write small datasets in the formats of the published archives.

Every class has IMAGES train images and TEST_IMAGES test images.
"""

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, STL10, SVHN

from coupled.datasets.stl10 import LabelledSTL10

WORDNET_IDS = ("n01443537", "n01629819", "n01641577", "n01644900")
IMAGES, TEST_IMAGES = 6, 2


def noise(seed: int, *shape: int) -> np.ndarray:
    """Return random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def jpeg(seed: int, height: int = 64, width: int = 64, kind: str = "JPEG") -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(noise(seed, height, width, 3)).save(file, kind)
    return file.getvalue()


def of_class(label: int, count: int, start: int = 0) -> Iterator[tuple[str, bytes]]:
    """Return file names in ImageNet's form and bytes of the images of a class."""
    for number in range(start, start + count):
        yield f"{WORDNET_IDS[label]}_{number}.JPEG", jpeg(1000 * label + number)


def write(path: Path, content: bytes | str) -> str:
    """Write a file and its folders; return the md5 sum of its content."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.md5(data).hexdigest()


def cifar(kind: type[CIFAR10], root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write CIFAR's Python files; torchvision's md5 sums are replaced by those of these files."""
    folder = root / kind.base_folder
    key, classes = ("labels", 10) if kind is CIFAR10 else ("fine_labels", 100)
    for first, files in ((0, "train_list"), (10, "test_list")):
        sums = []
        for seed, (name, _) in enumerate(getattr(kind, files), start=first):
            entry = {"data": noise(seed, 2 * classes, 3072), key: [*range(classes)] * 2}
            sums.append([name, write(folder / name, python2_pickle(entry))])
        patch.setattr(kind, files, sums)
    names = {kind.meta["key"]: [f"thing {klass}" for klass in range(classes)]}
    md5 = write(folder / kind.meta["filename"], python2_pickle(names))
    patch.setattr(kind, "meta", {**kind.meta, "md5": md5})


def python2_pickle(entry: object) -> bytes:
    """Pickle like NumPy under Python 2, which wrote the flags of a dtype as 0 and 1, not as False and True."""
    return pickle.dumps(entry, protocol=2).replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


def svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write MATLAB files: X is [32, 32, 3, N]; y is 1 to 10, and 10 is the digit 0."""
    lists = {}
    for seed, (split, (url, name, _)) in enumerate(SVHN.split_list.items()):
        file = io.BytesIO()
        savemat(file, {"X": noise(seed, 32, 32, 3, 20), "y": np.array([*range(1, 11)] * 2, np.uint8)[:, None]})
        lists[split] = [url, name, write(root / name, file.getvalue())]
    patch.setattr(SVHN, "split_list", lists)


def stl10(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write binary files: one channel after another, each column by column; labels begin at 1."""
    for seed, files in enumerate(("train_list", "test_list")):
        (pixels, _), (labels, _) = getattr(LabelledSTL10, files)
        folder = root / LabelledSTL10.base_folder
        md5 = (
            write(folder / pixels, noise(seed, 20, 3, 96, 96).tobytes()),
            write(folder / labels, bytes(range(1, 11)) * 2),
        )
        patch.setattr(LabelledSTL10, files, [[pixels, md5[0]], [labels, md5[1]]])


def unlabelled_stl10(root: Path, patch: pytest.MonkeyPatch) -> np.ndarray:
    """Write the files of `stl10` and 30 unlabelled images; return their bytes [30, 3, column, row]."""
    stl10(root, patch)
    content = noise(7, 30, 3, 96, 96)
    name = STL10.train_list[2][0]
    md5 = write(root / STL10.base_folder / name, content.tobytes())
    patch.setattr(STL10, "train_list", [*LabelledSTL10.train_list, [name, md5]])
    patch.setattr(STL10, "test_list", LabelledSTL10.test_list)
    return content


def tiny_imagenet_files() -> dict[str, bytes]:
    """Return the members of tiny-imagenet-200.zip by name."""
    files: dict[str, bytes] = {"wnids.txt": "\n".join(reversed(WORDNET_IDS)).encode() + b"\n"}
    files["words.txt"] = b"".join(f"{wordnet_id}\tthing, entity\n".encode() for wordnet_id in WORDNET_IDS)
    lines = []
    for label, wordnet_id in enumerate(WORDNET_IDS):
        for name, content in of_class(label, IMAGES):
            files[f"train/{wordnet_id}/images/{name}"] = content
        files[f"train/{wordnet_id}/{wordnet_id}_boxes.txt"] = b"0\t0\t63\t63\n"
        for number in range(TEST_IMAGES):
            name = f"val_{10 * number + label}.JPEG"
            lines.append(f"{name}\t{wordnet_id}\t0\t32\t44\t62\n")
            files[f"val/images/{name}"] = jpeg(9000 + 10 * number + label)
    files["val/val_annotations.txt"] = "".join(sorted(lines)).encode()
    files["test/images/test_0.JPEG"] = jpeg(1)
    return files


def mini_imagenet_files() -> dict[str, bytes]:
    """Write the lists of Ravi and Larochelle, which split the classes, and the folder of their images."""
    files: dict[str, bytes] = {}
    parts: dict[str, tuple[int, ...]] = {"train": (0, 1), "val": (2,), "test": (3,)}
    for part, labels in parts.items():
        rows = ["filename,label"]
        for label in labels:
            for number in range(IMAGES + TEST_IMAGES):
                name = f"{WORDNET_IDS[label]}{number:08d}.jpg"
                rows.append(f"{name},{WORDNET_IDS[label]}")
                files[f"images/{name}"] = jpeg(1000 * label + number, 90, 100 + number)
        files[f"{part}.csv"] = "\n".join(rows).encode() + b"\n"
    return files


def write_files(root: Path, files: dict[str, bytes]) -> None:
    """Write the files below a folder."""
    for name, content in files.items():
        write(root / name, content)


def write_zip(path: Path, files: dict[str, bytes], top: str = "") -> Path:
    """Write a zip archive of the files, below the folder `top`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}{name}", content)
    return path


def write_tar(path: Path, files: dict[str, bytes], top: str = "") -> Path:
    """Write a tar archive of the files, compressed according to its name."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def imagenet_archives(folder: Path) -> list[Path]:
    """Write ILSVRC2012's archives: a tar with one tar per class, a tar of all validation images, and the devkit."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = {
        f"{wordnet_id}.tar": write_tar(folder / "inner.tar", dict(of_class(label, IMAGES))).read_bytes()
        for label, wordnet_id in enumerate(WORDNET_IDS)
    }
    (folder / "inner.tar").unlink()
    numbers = [*range(len(WORDNET_IDS))] * TEST_IMAGES
    val = {f"ILSVRC2012_val_{place:08d}.JPEG": jpeg(9000 + place, 50, 80) for place in range(1, len(numbers) + 1)}
    kinds: list[Any] = [("ILSVRC2012_ID", "<i8"), ("WNID", "O"), ("num_children", "<i8")]
    synsets = np.array([(number + 1, name, 0) for number, name in enumerate(reversed(WORDNET_IDS))], dtype=kinds)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]})
    devkit = {
        "data/meta.mat": meta.getvalue(),
        "data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n + 1}\n" for n in numbers).encode(),
        "readme.txt": b"",
    }
    return [
        write_tar(folder / "ILSVRC2012_img_train.tar", inner),
        write_tar(folder / "ILSVRC2012_img_val.tar", val),
        write_tar(folder / "ILSVRC2012_devkit_t12.tar.gz", devkit, "ILSVRC2012_devkit_t12/"),
    ]


def imagenet_files() -> dict[str, bytes]:
    """Write images of several sizes to train/<class>/ and val/<class>/."""
    files = {}
    for label, wordnet_id in enumerate(WORDNET_IDS):
        for part, count in (("train", IMAGES), ("val", TEST_IMAGES)):
            for number in range(count):
                name = f"{part}/{wordnet_id}/{wordnet_id}_{part}_{number}.JPEG"
                files[name] = jpeg(1000 * label + number, 40 + 7 * number, 60 - 3 * label)
    return files


def write_parquet(folder: Path, names: tuple[str, ...] = WORDNET_IDS, size: tuple[int, int] = (64, 64)) -> Path:
    """Write a Hugging Face dataset: two train files, one validation file, and their features in the metadata."""
    import pyarrow as arrow  # only this format needs the extra [hf]
    from pyarrow import parquet

    label = {"names": list(names), "_type": "ClassLabel"}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema([("image", picture), ("label", arrow.int64())], metadata={"huggingface": json.dumps(about)})
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (file, count) in enumerate(
        {
            "train-00000-of-00002": IMAGES // 2,
            "train-00001-of-00002": IMAGES // 2,
            "validation-00000-of-00001": 2,
        }.items()
    ):
        labels = [*range(len(names))] * count
        cells = [{"bytes": jpeg(100 * seed + n, *size), "path": None} for n in range(len(labels))]
        table = arrow.Table.from_pydict({"image": cells, "label": labels}, schema=schema)
        parquet.write_table(table, folder / f"{file}.parquet", row_group_size=5)
    return folder
