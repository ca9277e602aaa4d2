"""Confidence intervals over images: coverage, seeding, and no interval without a defined score."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.pair_definitions import best
from torch import Tensor

from coupled.analysis.alignment import main
from coupled.analysis.representations.intervals import (
    BLOCKS,
    HALVES,
    blocks,
    class_blocks,
    interval,
    left_out_blocks,
    left_out_scores,
)
from coupled.analysis.representations.pair_scores import Score, one_pass, scores, values
from coupled.analysis.schemas import INTERVAL
from coupled.analysis.tables import read_table
from coupled.config.metric_registry import find_pair_metrics, pair_metric_names
from coupled.storage.atomic_files import write_durably

METRICS = {metric.name: metric for metric in find_pair_metrics(pair_metric_names())}
WANTED = [Score("x", "y", "h", name) for name in METRICS]
EXACT = [score for score in WANTED if not METRICS[score.metric].subset]
SMOOTH = [score for score in EXACT if score.metric != "svcca"]  # it has no interval
SUBSET = [score for score in WANTED if METRICS[score.metric].subset]
Read = Callable[[Path], list[dict[str, str]]]


def sample(seed: int, images: int) -> tuple[Tensor, Tensor]:
    """Two representations of images from one population: non-negative like ReLU features, and partly shared."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(images, 6, generator=generator, dtype=torch.float64).relu()
    own = torch.randn(2, images, 6, generator=generator, dtype=torch.float64)
    return shared * torch.arange(1, 7) + own[0], shared[:, 2:] * torch.arange(3, 7) + 2 * own[1][:, 2:]


def batches(x_nD: Tensor, y_nE: Tensor) -> list[dict[tuple[str, str], Tensor]]:
    return [{("x", "h"): x, ("y", "h"): y} for x, y in zip(x_nD.split(64), y_nE.split(64), strict=True)]


def without_blocks(x_nD: Tensor, y_nE: Tensor, wanted: list[Score], seed: int = 0) -> tuple[dict, dict]:
    seen = one_pass(batches(x_nD, y_nE), wanted, METRICS, keep_rows=True)
    block_n = blocks(len(x_nD), seed, "test")
    count = min(BLOCKS, len(x_nD))
    parts = left_out_scores(seen, wanted, METRICS, {None: (block_n, count)}, {1000: block_n})
    return values(seen, wanted, METRICS), parts


def test_leave_one_block_out_scores_equal_scores_of_the_other_images() -> None:
    """Differences of sums must not lose digits, nor mix up blocks."""
    x_nD, y_nE = sample(1, 120)
    _, parts = without_blocks(x_nD, y_nE, WANTED)
    block_n = blocks(120, 0, "test")
    for place in (0, 17, BLOCKS - 1):
        for score in WANTED:
            rest = ~torch.isin(block_n, left_out_blocks(score.metric, BLOCKS)[place]) if score.metric != "svcca" else []
            if len(rest):
                expected = scores(batches(x_nD[rest], y_nE[rest]), [score], METRICS)
                assert parts[score][place] == pytest.approx(expected[score], abs=1e-10)
    assert {len(parts[score]) for score in WANTED if score.metric != "svcca"} == {BLOCKS}


def test_each_block_is_left_out_once_or_half_of_the_blocks_in_complementary_pairs() -> None:
    """Halves that overlap in part would have another variance; svcca has no interval."""
    assert [blocks_n.tolist() for blocks_n in left_out_blocks("cka", 4)] == [[0], [1], [2], [3]]
    halves = left_out_blocks("pwcca", BLOCKS)
    assert len(halves) == HALVES
    assert len({tuple(sorted(half.tolist())) for half in halves}) == HALVES
    for one, other in zip(halves[::2], halves[1::2], strict=True):
        assert len(one) == len(other) == BLOCKS // 2
        assert sorted([*one.tolist(), *other.tolist()]) == list(range(BLOCKS))
    assert not left_out_blocks("svcca", BLOCKS) + left_out_blocks("pwcca", 1) + left_out_blocks("cka", 1)


def test_intervals_of_a_class_are_those_of_its_images_alone() -> None:
    """Blocks of other classes must change nothing, in whatever batch or order the images of a class come."""
    x_nD, y_nE = sample(2, 90)
    labels_n = torch.arange(90) % 3
    wanted = [score._replace(label=label) for score in EXACT for label in (0, 2)]
    every = class_blocks(labels_n, 0, "test")
    assert all(sorted(every[label][labels_n == label].tolist()) == list(range(30)) for label in (0, 1, 2))
    assert (every[0][labels_n != 0] == -1).all()
    seen = one_pass(batches(x_nD, y_nE), wanted, METRICS, keep_rows=True, labels_N=labels_n)
    parts = left_out_scores(seen, wanted, METRICS, {label: (every[label], 30) for label in every}, {})
    for label in (0, 2):
        for place in (0, 29):
            for score in SMOOTH:
                rest = (labels_n == label) & ~torch.isin(every[label], left_out_blocks(score.metric, 30)[place])
                found = parts[score._replace(label=label)]
                assert len(found) == (HALVES if score.metric == "pwcca" else 30)
                expected = scores(batches(x_nD[rest], y_nE[rest]), [score], METRICS)
                assert found[place] == pytest.approx(expected[score], abs=1e-9)


@pytest.mark.parametrize("images", [1, 2])
def test_a_class_of_one_or_two_images_has_no_interval(images: int) -> None:
    """Without a block no image, or a single one, is left, and that has no score."""
    x_nD, y_nE = sample(2, 20)
    labels_n = (torch.arange(20) < images).long()
    wanted = [Score("x", "y", "h", name, label=1) for name in ("cka", "svcca", "linear_predictivity")]
    seen = one_pass(batches(x_nD, y_nE), wanted, METRICS, keep_rows=True, labels_N=labels_n)
    parts = left_out_scores(seen, wanted, METRICS, {1: (class_blocks(labels_n, 0, "test")[1], images)}, {})
    for score in wanted:
        assert all(map(np.isnan, interval(0.5, parts[score], 20, 0, (0, 1))))


@pytest.mark.slow
@pytest.mark.parametrize(("images", "wanted", "repeats"), [(200, SMOOTH, 40), (60, SUBSET, 40)])
def test_intervals_cover_95_percent_and_have_the_width_of_the_score_distribution(
    images: int, wanted: list[Score], repeats: int
) -> None:
    """Over many samples of images, 95 % of the intervals contain the mean score."""
    found: dict[Score, list[float]] = {score: [] for score in wanted}
    ends: dict[Score, list[tuple[float, float]]] = {score: [] for score in wanted}
    for seed in range(repeats):
        whole, parts = without_blocks(*sample(seed, images), wanted, seed)
        for score in wanted:
            found[score].append(whole[score])
            about = 400, seed, METRICS[score.metric].range, score.metric
            ends[score].append(interval(whole[score], parts[score], *about))
    for score in wanted:
        truth = np.mean(found[score])
        covered = np.mean([low <= truth <= high for low, high in ends[score]])
        width = np.mean([high - low for low, high in ends[score]]) / (2 * 1.96 * np.std(found[score]))
        print(score.metric, covered, width)
        assert 0.88 <= covered <= 1, score
        assert 0.8 <= width <= 1.25, score


def test_equal_arms_have_an_interval_of_width_0() -> None:
    """At the shared start every score is the best one whatever the images."""
    x_nD, _ = sample(2, 70)
    whole, parts = without_blocks(x_nD, x_nD.clone(), WANTED)
    for score in SMOOTH + SUBSET:
        score_of_equals = best(score.metric)
        assert interval(whole[score], parts[score], 100, 0, METRICS[score.metric].range) == (score_of_equals,) * 2


def test_an_interval_is_seeded_within_the_range_and_empty_where_a_score_is_undefined() -> None:
    """Equal seeds give equal intervals; other seeds resample differently; more resamples vary less."""
    part_K = np.linspace(0.9, 0.99, 50)
    low, high = interval(0.95, part_K, 200, 3, (0, 1))
    assert (low, high) == interval(0.95, part_K, 200, 3, (0, 1))
    assert (low, high) != interval(0.95, part_K, 200, 4, (0, 1))
    assert low < 0.95 < high == 1
    normal = 1.96 * np.sqrt(49 / 50 * np.square(part_K - part_K.mean()).sum())
    wide = interval(0.95, part_K, 20_000, 3, (-9, 9))
    assert wide == pytest.approx((0.95 - normal, 0.95 + normal), abs=0.02 * normal)
    of_halves = 1.96 * part_K.std(ddof=1)
    wide = interval(0.95, part_K, 20_000, 3, (-9, 9), "pwcca")
    assert wide == pytest.approx((0.95 - of_halves, 0.95 + of_halves), abs=0.02 * of_halves)
    for value, parts_K in ((float("nan"), part_K), (0.9, np.array([0.9, np.nan])), (0.9, np.array([0.9]))):
        assert np.isnan(interval(value, parts_K, 10, 0, (0, 1))).all()


def test_blocks_are_random_and_of_equal_size() -> None:
    """Folder datasets are sorted by class: blocks of consecutive images would vary less."""
    block_N = blocks(1440, 5, "train")
    assert set(block_N.bincount().tolist()) == {28, 29}
    assert not torch.equal(block_N, blocks(1440, 6, "train"))
    assert not torch.equal(block_N, blocks(1440, 5, "test"))
    assert (block_N[1:] - block_N[:-1]).float().abs().mean() > 10
    assert sorted(blocks(7, 5, "train").tolist()) == list(range(7))


def test_the_program_writes_intervals(drifting_run: Path, tmp_path: Path, table: Read) -> None:
    """A second call into another folder gives equal intervals; the scores are those of a call without intervals."""
    base = [*command(drifting_run), "--num-images", "150", "--compare", "ce", "--metrics", *METRICS]
    for folder in ("one", "two", "none"):
        intervals = ["--confidence", "50"] if folder != "none" else []
        assert main([*base, "--output", str(tmp_path / folder), *intervals]) == 0
    one, two, plain = (table(tmp_path / folder / "test_alignment.csv") for folder in ("one", "two", "none"))
    assert two == one
    assert [row | without_interval for row in one] == plain
    for row in one:
        assert row["resamples"] == "50"
        if row["metric"] == "svcca":
            assert row["ci_low"] == row["ci_high"] == ""
            continue
        low, value, high = (float(row[column]) for column in ("ci_low", "value", "ci_high"))
        assert low == value == high == best(row["metric"]) if row["epoch"] == "0" else low < value < high


without_interval = dict.fromkeys(INTERVAL, "")


def command(run: Path) -> list[str]:
    return ["--run-dir", str(run), "--split", "test", "--layers", "h", "--epochs", "0,2"]


def measure(run: Path, output: Path, *more: str) -> pd.DataFrame:
    """The table after a call of the program into `output`."""
    options = ["--num-images", "40", "--compare", "nscl", "ce", "--metrics", "cka", "rsa", "--output", str(output)]
    assert main([*command(run), *options, *more]) == 0
    return read_table(output / "test_alignment.csv")


def by_metric(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Epochs x arms of each metric. pandas raises ValueError if a score has two rows."""
    return [own.pivot(index="epoch", columns="arm", values="value") for _, own in rows.groupby("metric")]


def test_a_score_has_one_row_whether_its_interval_is_computed_first_later_or_again(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second row beside the first would count a score twice, and a plain pivot of the table would fail."""
    plain = measure(drifting_run, tmp_path)
    narrow = measure(drifting_run, tmp_path, "--confidence", "20")
    assert len(plain) == len(narrow) == 8
    assert [*map(pd.DataFrame.to_dict, by_metric(narrow))] == [*map(pd.DataFrame.to_dict, by_metric(plain))]
    assert narrow["ci_low"].notna().all()
    assert {*narrow["resamples"]} == {20}
    written = (tmp_path / "test_alignment.csv").read_bytes()
    for options in ((), ("--confidence", "20")):
        capsys.readouterr()
        measure(drifting_run, tmp_path, *options)
        assert "test_alignment.csv: 0 new rows, 8 in all" in capsys.readouterr().out
        assert (tmp_path / "test_alignment.csv").read_bytes() == written
    again = measure(drifting_run, tmp_path, "--confidence", "30")
    assert {*again["resamples"]} == {30}
    assert len(again) == 8
    assert again["value"].equals(narrow["value"])
    assert not again["ci_low"].equals(narrow["ci_low"])


@pytest.mark.parametrize("before", [True, False])
def test_a_call_that_is_killed_keeps_every_score_and_is_continued(
    drifting_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Before or after the write of the second epoch: its rows are the old or the new ones, and none is lost."""
    plain = measure(drifting_run, tmp_path / "cut")
    writes: list[Path] = []

    def killed(path: Path, data: Iterable[bytes]) -> None:
        writes.append(path)
        if len(writes) < 2 or not before:
            write_durably(path, data)
        if len(writes) == 2:
            raise SystemExit("killed")

    monkeypatch.setattr("coupled.analysis.tidy_csv.write_durably", killed)
    with pytest.raises(SystemExit, match="killed"):
        measure(drifting_run, tmp_path / "cut", "--confidence", "20")
    monkeypatch.undo()
    cut = read_table(tmp_path / "cut/test_alignment.csv")
    assert [*map(pd.DataFrame.to_dict, by_metric(cut))] == [*map(pd.DataFrame.to_dict, by_metric(plain))]
    assert cut.groupby("epoch")["resamples"].count().to_dict() == {0: 4, 2: 0 if before else 4}
    continued = measure(drifting_run, tmp_path / "cut", "--confidence", "20")
    assert continued.equals(measure(drifting_run, tmp_path / "whole", "--confidence", "20"))
