"""The answers of claim 15 for rows with known values."""

import pandas as pd
import reproduction_families

SEEDS = (0, 1, 2)
BASE = {"reference": "cl", "module": "h", "split": "test", "epoch": 20, "aggregate": None, "num_images": 9}


def test_the_table_of_classifiers_has_one_value_per_seed_and_score() -> None:
    """The probe's calibration error and its negative log-likelihood have one metric; a mean of both has no meaning."""
    calibration = {"table": "quality", "metric": "probe_calibration"}
    gap = {"metric": "gap", "module": None, "aggregate": "mean"}
    given = []
    for place, (arm, seed) in enumerate((arm, seed) for arm in ("nscl", "scl") for seed in SEEDS):
        k = place // len(SEEDS)
        score = {**BASE, "arm": arm, "variant": None, "seed": seed, "run": f"r{seed}"}
        given += [
            {**score, **calibration, "variant": "ece", "value": 0.1 + k + seed / 100},
            {**score, **calibration, "variant": "nll", "value": 9.0},
            {**score, **gap, "table": "weight_gap", "value": 0.4 + k},
            {**score, **gap, "table": "weight_gap_permutation", "value": 0.3 - 0.1 * k},
            *({**score, "table": "robustness_mce", "metric": m, "value": 1.5} for m in reproduction_families.ERRORS),
            *({**score, "table": "barrier_height", "metric": m, "value": 2.5} for m in reproduction_families.BARRIERS),
        ]
    answer = reproduction_families.classifiers(pd.DataFrame(given))
    assert (answer.table["seeds"] == len(SEEDS)).all()
    means = answer.table.set_index(["arm", "score"])["mean"].round(6)
    assert means["nscl", "calibration error of the probe"] == 0.11
    assert (means["scl", "weight gap"], means["scl", "weight gap, channels matched"]) == (1.4, 0.2)
    assert "weight gap: the smallest is that of nscl in 3 of 3 seeds" in answer.verdict
    assert "weight gap, channels matched: the smallest is that of scl in 3 of 3 seeds" in answer.verdict
