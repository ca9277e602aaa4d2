"""The cache of decoded images: it returns the same images, never outdated or damaged ones."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny

from coupled.datasets import _cache, _pictures, folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, and a cache that also stores very small datasets."""
    monkeypatch.setenv("COUPLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_cache, "SMALLEST", 1)
    rng = np.random.default_rng(5)
    for place in ("train/a/1", "train/a/2", "train/b/3", "test/a/4", "test/b/5"):
        path = tmp_path / f"own/{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return tmp_path / "own"


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the pictures that each later call decodes."""
    counts: list[int] = []
    decode = _pictures._decode
    monkeypatch.setattr(_pictures, "_decode", lambda paths, size: (counts.append(len(paths)), decode(paths, size))[1])
    return counts


def load(root: Path) -> tuple[object, ...]:
    """Return all that a run uses of the train images."""
    found = folder.load("train", root=root, image_size=24)
    return found.digest(), found.labels_N.tolist(), found.mean, found.std, found.files_N, found.notes


def entries(kind: str = "npy") -> list[Path]:
    return sorted((_cache.cache_folder() / "decoded").glob(f"*.{kind}"))


def test_a_second_start_reads_the_same_images_from_the_cache(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digest, statistics and notes equal those of a start without the cache; nothing is decoded."""
    counts = decoded(monkeypatch)
    monkeypatch.setenv("COUPLED_CACHE_GIB", "0")
    without = load(own)
    assert not entries()
    monkeypatch.delenv("COUPLED_CACHE_GIB")
    assert (load(own), load(own)) == (without, without)
    assert counts == [3, 3]
    folder.load("train", root=own, image_size=24).images_N3HW.zero_()  # a copy on write
    assert load(own) == without
    assert counts == [3, 3]


@pytest.mark.parametrize("change", ["pixels", "times put back", "renamed", "size"])
def test_a_changed_file_is_decoded_again(change: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repaired picture must be read again, even if its modification time is unchanged."""
    path = own / "train/a/1.png"
    path = path.rename(path.with_suffix(".bmp"))
    Image.open(path).convert("RGB").save(path)  # two of one size have as many bytes
    before, status = load(own), path.stat()
    counts = decoded(monkeypatch)
    if change == "renamed":
        path.rename(path.with_name("0.bmp"))
    elif change == "size":
        folder.load("train", root=own, image_size=16)
    else:
        Image.new("RGB", (24, 20), (9, 9, 9)).save(path)
        if change == "times put back":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert path.stat().st_size == status.st_size
    if change != "size":
        assert load(own) != before
    assert counts == [3]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a flipped bit": flip,
    "a truncated file": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "an empty file": lambda path: path.write_bytes(b""),
    "no file": Path.unlink,
    "no checksums": lambda path: path.with_suffix(".json").write_text("{}"),
    "no JSON": lambda path: path.with_suffix(".json").write_text("{"),
    "a list": lambda path: path.with_suffix(".json").write_text("[]"),
    "another shape": lambda path: np.save(path, np.zeros((3, 3, 24, 25), np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_entry_is_rebuilt(damage: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache may cost time; it must never change an image."""
    before = load(own)
    (path,) = entries()
    DAMAGE[damage](path)
    counts = decoded(monkeypatch)
    assert (load(own), load(own)) == (before, before)
    assert counts == [3]


def test_the_least_recently_used_cache_entry_is_deleted(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache must not fill the disk; here it has room for two datasets, not three."""
    for number, size in enumerate((24, 23)):
        folder.load("train", root=own, image_size=size)
        newest = max(entries("json"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    (_cache.cache_folder() / "decoded/left.npy.1.tmp").write_bytes(b"")
    os.utime(_cache.cache_folder() / "decoded/left.npy.1.tmp", (1, 1))
    monkeypatch.setenv("COUPLED_CACHE_GIB", str(2.2 * 3 * 3 * 24 * 24 / 2**30))
    counts = decoded(monkeypatch)
    load(own)
    folder.load("train", root=own, image_size=22)
    assert len(entries()) == len(entries("json")) == 2
    assert not entries("tmp")
    load(own)
    assert counts == [3]  # that of 24 px was used after that of 23 px
    monkeypatch.setenv("COUPLED_CACHE_GIB", "much")
    with pytest.raises(ValueError, match="COUPLED_CACHE_GIB: got 'much'; allowed is a number"):
        load(own)


def test_a_run_continues_if_the_cache_cannot_be_written(own: Path, capsys: pytest.CaptureFixture) -> None:
    """The cache is optional: failing to write it costs time only."""
    _cache.cache_folder().write_text("in the way")
    first = load(own)
    assert "the next start decodes them again" in capsys.readouterr().err
    assert load(own) == first


def test_a_cache_entry_lists_the_sizes_of_its_pictures(own: Path) -> None:
    """A note on the pictures that are enlarged needs these sizes."""
    notes = load(own)[-1]
    assert any("are enlarged to 24 px" in str(note) for note in notes)
    assert json.loads(entries("json")[0].read_text())["sides"] == [20, 20, 20]
    assert torch.equal(*(folder.load("test", root=own, image_size=24).images_N3HW for _ in range(2)))


def test_the_common_picture_size_is_cached_and_a_damaged_entry_is_ignored(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another size would be another run."""
    monkeypatch.setattr(folder, "MANY", 1)
    asked: list[Path] = []
    shorter_side = folder.shorter_side
    monkeypatch.setattr(folder, "shorter_side", lambda path: (asked.append(path), shorter_side(path))[1])
    assert [folder.own_size(root=own), folder.own_size(root=own), len(asked)] == [20, 20, 5]
    (path,) = entries("json")
    path.write_text(path.read_text().replace("20", "24", 1))
    assert [folder.own_size(root=own), len(asked)] == [20, 10]
    Image.new("RGB", (64, 32)).save(own / "train/a/1.png")
    assert [folder.own_size(root=own), len(asked)] == [64, 15]


def test_two_processes_that_start_together_decode_once(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As the ranks of a machine, or the runs of a sweep: the second waits for the first and gets the same images."""
    monkeypatch.setenv("COUPLED_CACHE_GIB", "0")
    without = load(own)
    monkeypatch.delenv("COUPLED_CACHE_GIB")
    monkeypatch.setattr(_cache, "PATIENCE", 0)
    monkeypatch.setattr(_pictures, "STATISTICS_IMAGES", 3)
    counts: list[int] = []
    decode = _pictures._decode

    def slow(paths: list[str], size: int) -> object:
        counts.append(len(paths))
        time.sleep(0.3)
        return decode(paths, size)

    monkeypatch.setattr(_pictures, "_decode", slow)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(load, [own, own])) == [without, without]
    assert counts == [3]
    assert "waiting for another process that decodes the same images" in capsys.readouterr().err


def test_a_run_has_the_same_bits_with_and_without_the_cache(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding, writing to and reading from the cache give equal weights and equal steps.csv."""
    files = {}
    for kind, limit in (("off", "0"), ("writes", "1"), ("reads", "1")):
        monkeypatch.setenv("COUPLED_CACHE_GIB", limit)
        counts = decoded(monkeypatch)
        dataset = {"name": "folder", "root": str(own), "image_size": 24}
        tiny.train(
            tmp_path / kind, dataset=dataset, batch={"size": 3}, epochs=1, arms={"cl": "dcl", "ce": "cross_entropy"}
        )
        assert bool(counts) == (kind != "reads")
        files[kind] = {
            path.name: path.read_bytes() for path in (tmp_path / kind).rglob("*.safetensors") if "snapshot" in str(path)
        }
        files[kind]["steps.csv"] = (tmp_path / kind / "steps.csv").read_bytes()
    assert len(files["off"]) > 2
    assert files["off"] == files["writes"] == files["reads"]
