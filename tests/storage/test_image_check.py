"""Before a run begins, all images on disk are checked for decoding errors."""

import os
from pathlib import Path

import pytest
import torch
from support import ranks
from support.image_formats import jpeg

from coupled.datasets import ImageFiles
from coupled.parallel.process_group import process_group
from coupled.storage import image_check
from coupled.storage.image_check import check_pictures

BAD = (1, 6, 7)


def files(root: Path) -> ImageFiles:
    """Twelve images in `root`, which may already exist."""
    names = tuple(f"{number:02d}.jpg" for number in range(12))
    for number, name in enumerate(names):
        if not (root / name).exists():
            (root / name).write_bytes(b"none" if number in BAD else jpeg(number, 8, 8))
    return ImageFiles("mine", "train", root, names, torch.zeros(12, dtype=torch.int64), ("a",), (0.5,) * 3, (0.5,) * 3)


def checked(root: Path) -> tuple[str, int]:
    """Return the result of the check on this rank, and the number of images that this rank decoded."""
    decoded: list[Path] = []
    faults = image_check.faults

    def counted(parts: list[list[Path]], workers: int) -> object:
        decoded.extend(path for part in parts for path in part)
        return faults(parts, workers)

    os.chdir(root)
    image_check.ROUND, image_check.faults = 5, counted
    try:
        with process_group("cpu") as group:
            check_pictures([files(root)], group, None)
        return "", len(decoded)
    except ValueError as error:
        return str(error), len(decoded)
    finally:
        image_check.ROUND, image_check.faults = 4096, faults


@pytest.mark.distributed
def test_ranks_share_the_image_check_and_all_report_the_bad_files(tmp_path: Path) -> None:
    """A rank that did not know would wait for the other ranks forever."""
    files(tmp_path)
    (said, one), (also, other) = ranks.run(2, checked, tmp_path)
    assert said == also
    assert said.startswith("3 images cannot be decoded: ")
    assert [f"{number:02d}.jpg: not a readable image" in said for number in range(12)] == [n in BAD for n in range(12)]
    assert (one, other) == (7, 5)
    for number in BAD:
        (tmp_path / f"{number:02d}.jpg").write_bytes(jpeg(number, 8, 8))
    assert ranks.run(2, checked, tmp_path) == [("", 2), ("", 1)]


def test_a_damaged_or_unwritable_cache_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The cache is optional: results do not depend on it."""
    monkeypatch.chdir(tmp_path)
    images = files(tmp_path)
    for number in BAD:
        (tmp_path / f"{number:02d}.jpg").write_bytes(jpeg(number, 8, 8))
    with process_group("cpu") as group:
        Path(".cache").write_text("in the way")
        check_pictures([images], group, 0)
        said = capsys.readouterr().out
        assert "checking that 12 of 12 images decode\n" in said
        assert ".cache" in said.splitlines()[-1]
        assert said.endswith("; the next start decodes the images again\n")
        Path(".cache").unlink()
        monkeypatch.setattr(image_check, "ROUND", 5)
        monkeypatch.setattr(image_check, "SILENCE", 0)
        check_pictures([images], group, 0)
        assert "\n5 of 12 images decoded, 0:00:0" in capsys.readouterr().out
        (cache,) = Path(".cache/coupled").iterdir()
        cache.write_bytes(cache.read_bytes()[:-3])
        capsys.readouterr()
        check_pictures([images], group, 0)
        assert "checking that 1 of 12 images decode\n" in capsys.readouterr().out
