"""Alignment on several ranks: images are divided among ranks, sums are merged, one table is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import ranks
from support.pair_definitions import best

from coupled.analysis.alignment import main
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.config.metric_registry import find_pair_metrics, pair_metric_names
from coupled.parallel.process_group import process_group

pytestmark = pytest.mark.distributed

METRICS = {metric.name: metric for metric in find_pair_metrics(pair_metric_names())}
WANTED = [Score("cl", arm, "h", name) for arm in ("nscl", "same") for name in METRICS]


SUBSETS = {1000: torch.arange(101) % 3 != 1}


def embeddings() -> dict[tuple[str, str], torch.Tensor]:
    """Of 101 images, with a mean far from 0; the arm "same" is equal to the reference."""
    generator = torch.Generator().manual_seed(0)
    cl, other = torch.randn(2, 101, 12, generator=generator, dtype=torch.float64) + 50
    return {("cl", "h"): cl, ("nscl", "h"): 0.5 * cl + other, ("same", "h"): cl.clone()}


def on_a_rank() -> list[float]:
    with process_group("cpu") as group:
        own = {key: rows.tensor_split(group.world_size)[group.rank] for key, rows in embeddings().items()}
        batches = [{key: rows[start : start + 10] for key, rows in own.items()} for start in range(0, 30, 10)]
        batches = [batch for batch in batches if len(batch["cl", "h"])]
        rest = {key: rows[30:] for key, rows in own.items()}
        batches = [*batches, *([rest] if len(rest["cl", "h"]) else [])]
        subsets = {size: mask_N.tensor_split(group.world_size)[group.rank] for size, mask_N in SUBSETS.items()}
        return list(scores(batches, WANTED, METRICS, subsets).values())


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_ranks_score_like_one_process(world_size: int) -> None:
    """From the same embeddings the same numbers, and equal arms still have exactly the best score."""
    expected = list(scores([embeddings()], WANTED, METRICS, SUBSETS).values())
    for found in ranks.run(world_size, on_a_rank):
        assert found == pytest.approx(expected, abs=1e-12, rel=0)
        for score, value in zip(WANTED, found, strict=True):
            assert (value == best(score.metric)) == (score.arm == "same")


def program_on_a_rank(arguments: list[str]) -> int:
    return main(arguments)


@pytest.mark.slow
def test_the_program_gives_one_table_on_two_ranks(
    drifting_run: Path, tmp_path: Path, table: Callable[[Path], list[dict[str, str]]]
) -> None:
    """End to end: the rows of one process, each once, up to float32 differences from other batches."""
    plain = ["--split", "test", "--epochs", "0,2", "--layers", "layer1", "h", "--metrics", "cka", "rsa_spearman"]
    bootstrap = ["--split", "train", "--epochs", "2", "--compare", "ce", "--layers", "h", "--confidence", "20"]
    classes = ["--split", "train", "--epochs", "1", "--compare", "ce", "--layers", "h", "--confidence", "20"]
    classes += ["--per-class", "--num-images", "40", "--metrics", "cka", "rsa"]  # some are on one rank only
    for options in ([*plain, "--cross-layer"], [*bootstrap, "--metrics", "cka"], classes):
        arguments = ["--run-dir", str(drifting_run), *options, "--output"]
        assert main([*arguments, str(tmp_path / "one")]) == 0
        for _ in range(2):  # the second call finds everything there
            assert ranks.run(2, program_on_a_rank, [*arguments, str(tmp_path / "two")]) == [0, 0]
    for name in ("test_alignment.csv", "test_cross_layer.csv", "train_alignment.csv", "train_class_alignment.csv"):
        one, two = (table(tmp_path / folder / name) for folder in ("one", "two"))
        assert len(one) == len(two)
        for expected, found in zip(one, two, strict=True):
            tolerance = 1e-5 if expected["metric"] == "rsa_spearman" else 1e-6  # ranks turn a rounding into a step
            for column in ("value", "ci_low", "ci_high"):
                numbers = (float(row.pop(column) or "nan") for row in (found, expected))
                assert next(numbers) == pytest.approx(next(numbers), abs=tolerance, nan_ok=True)
            assert found == expected
    assert all(row["ci_low"] for row in table(tmp_path / "two/train_alignment.csv"))
