"""The embedding cache on disk: it returns the same rows, only for identical inputs, and stays below its size limit."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coupled.analysis import quality
from coupled.analysis.alignment import main
from coupled.analysis.representations import embeddings
from coupled.analysis.representations.cache import EmbeddingCache
from coupled.analysis.representations.embeddings import Embedder
from coupled.analysis.run import open_run

Read = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every batch that passes a network."""
    seen: list[int] = []
    real = embeddings.layer_outputs

    def counted(*arguments: object) -> object:
        seen.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(embeddings, "layer_outputs", counted)
    return seen


def test_a_second_call_reads_all_embeddings_from_the_cache(
    drifting_run: Path, tmp_path: Path, table: Read, forwards: list[int]
) -> None:
    """Other metrics on the same images: same values, bit for bit; quality.py reads the same files."""
    base = ["--run-dir", str(drifting_run), "--epochs", "1", "--split", "test", "--num-images", "300"]
    cached, plain = (
        [*base, "--output", str(tmp_path / "cached"), "--cache"],
        [*base, "--output", str(tmp_path / "plain")],
    )
    assert main([*cached, "--metrics", "cka"]) == 0
    assert len(forwards) == 2 * 4
    assert main([*cached, "--metrics", "rsa", "cka_debiased"]) == 0
    assert len(forwards) == 2 * 4
    assert main([*plain, "--metrics", "cka", "rsa", "cka_debiased"]) == 0
    assert len(forwards) == 4 * 4
    one, two = ({tuple(r.values()) for r in table(tmp_path / f / "test_alignment.csv")} for f in ("cached", "plain"))
    assert one == two
    assert quality.main([*cached, "--metrics", "effective_rank"]) == 0
    assert len(forwards) == 4 * 4
    assert main([*cached, "--metrics", "cka", "--layers", "layer1", "h"]) == 0  # an arm that lacks a layer is computed
    assert len(forwards) == 6 * 4


def test_cached_rows_belong_to_the_same_arm_epoch_images_and_layer(drifting_run: Path, tmp_path: Path) -> None:
    """Requests in any order; also with half of the arms cached and half computed."""
    run, cpu = open_run(drifting_run), torch.device("cpu")
    cache = EmbeddingCache(tmp_path, 2**30)
    for split in ("test", "train"):
        images = run.images(split)
        for chosen_N in (torch.arange(300), torch.arange(1, 301)):
            for arms, epoch, layers in ((["cl"], 1, ["h"]), (["cl", "ce"], 1, ["h"]), (["ce"], 2, ["h", "layer2"])):
                for embedder in (Embedder(run, cpu, cache), Embedder(run, cpu, cache)):
                    found = list(embedder.outputs(images, chosen_N, arms, epoch, layers))
                    expected = list(Embedder(run, cpu).outputs(images, chosen_N, arms, epoch, layers))
                    assert [list(batch) for batch in found] == [list(batch) for batch in expected]
                    for one, other in zip(found, expected, strict=True):
                        assert all(torch.equal(one[end], other[end]) for end in other)
    assert len(list(tmp_path.iterdir())) == 2 * 2 * 4


def test_the_least_recently_used_entry_is_deleted_to_keep_the_limit(tmp_path: Path) -> None:
    """A full disk would stop a training run on the same machine."""
    cache = EmbeddingCache(tmp_path, 6000)
    rows = {name: torch.full((100, 4), float(place)) for place, name in enumerate("abcd")}  # 1.6 kB and a header
    for age, name in enumerate("abc"):
        before = set(tmp_path.iterdir())
        cache.put(name, rows[name])
        (path,) = set(tmp_path.iterdir()) - before
        os.utime(path, (1000 + age, 1000 + age))
    first = cache.get("a")  # used again
    assert first is not None
    assert torch.equal(first, rows["a"])
    cache.put("d", rows["d"])
    kept = [name for name in "abcd" if cache.get(name) is not None]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 6000
    assert kept == ["a", "c", "d"]
    cache.put("large", torch.zeros(2000))
    assert cache.get("large") is None
    assert kept == [name for name in "abcd" if cache.get(name) is not None]


@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_a_damaged_file_is_noticed_and_replaced(tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit would be a wrong score in every later call."""
    cache = EmbeddingCache(tmp_path, 10_000)
    cache.put([1, "h"], torch.ones(20, 3))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data if harm == "flip" else data[:-10])
    assert cache.get([1, "h"]) is None
    assert capsys.readouterr().err == f"{path}: damaged; its embeddings are computed again\n"
    cache.put([1, "h"], torch.ones(20, 3))
    assert cache.get([1, "h"]) is not None


@pytest.mark.parametrize("text", ["0", "-1", "much", "inf", "nan"])
def test_an_invalid_cache_limit_is_refused(drifting_run: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """One line, status 2."""
    assert main(["--run-dir", str(drifting_run), f"--cache={text}"]) == 2
    assert f"argument --cache: got '{text}'; a number above 0 is allowed" in capsys.readouterr().err


def test_a_file_removed_by_another_rank_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks of alignment.py share the folder and its limit."""
    rows_ND = torch.zeros(10, 50)
    cache = EmbeddingCache(tmp_path / "cache", 3000)
    cache.put("a", rows_ND)
    glob = Path.glob

    def found_and_gone(self: Path, pattern: str) -> list[Path]:
        found = list(glob(self, pattern))
        for each in found:
            each.unlink()
        return found

    monkeypatch.setattr(Path, "glob", found_and_gone)
    cache.put("b", rows_ND)
    monkeypatch.undo()
    assert cache.get("a") is None
    assert torch.equal(cache.get("b"), rows_ND)

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "utime", gone)
    assert torch.equal(cache.get("b"), rows_ND)
