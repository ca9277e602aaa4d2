"""Benchmark the pair metrics: CKA and RSA of 10 000 images, 512 features, against forms with n x n matrices.

    python scripts/benchmarks/bench_metrics.py      (about two minutes; 5 GiB of memory for the libraries' form)

All forms get the same features and must agree to 1e-9. Each runs in a separate process on one thread and is timed in
CPU seconds, which a busy machine affects least.
n images, D features of an arm.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
import warnings

import torch
from torch import Tensor

from coupled.analysis.representations.embeddings import BATCH
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.config.metric_registry import find_pair_metrics
from coupled.monitoring.terminal import safe_streams
from coupled.stream.seeds import torch_rng

IMAGES, FEATURES = 10_000, 512
REPEATS = {"ours": 7, "definition": 2, "libraries": 1}
GOAL = 100


def features(images: int) -> tuple[Tensor, Tensor]:
    """Return features [n, D] of two arms in float32: not negative, as of a network with ReLU, and in part shared."""
    with torch_rng(0, "bench_metrics"):
        x_nD, y_nD = torch.randn(images, FEATURES), torch.randn(images, FEATURES)
    return x_nD.relu_(), y_nD.add_(x_nD).relu_()  # in place, so that they do not raise the peak memory


def ours(x_nD: Tensor, y_nD: Tensor) -> tuple[float, float]:
    """Compute batch by batch, as `coupled alignment` does."""
    metrics = {metric.name: metric for metric in find_pair_metrics(["cka", "rsa"])}
    batches = ({("x", "h"): x, ("y", "h"): y} for x, y in zip(x_nD.split(BATCH), y_nD.split(BATCH), strict=True))
    cka, rsa = scores(batches, [Score("x", "y", "h", name) for name in metrics], metrics).values()
    return cka, rsa


def definition(x_nD: Tensor, y_nD: Tensor) -> tuple[float, float]:
    """Compute by definition: centred Gram matrices; Pearson correlation of the upper triangles of dissimilarities."""
    x_nD, y_nD = x_nD.double(), y_nD.double()
    grams = []
    for rows_nD in (x_nD, y_nD):
        gram_nn = rows_nD @ rows_nD.T
        mean_n = gram_nn.mean(0)
        grams.append(gram_nn - mean_n - mean_n[:, None] + mean_n.mean())
    cka = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
    del grams, gram_nn
    upper_nn = torch.ones(len(x_nD), len(x_nD), dtype=torch.bool).triu(1)
    units = [torch.nn.functional.normalize(rows_nD) for rows_nD in (x_nD, y_nD)]
    rsa = torch.corrcoef(torch.stack([(1 - unit_nD @ unit_nD.T)[upper_nn] for unit_nD in units]))[0, 1]
    return float(cka), float(rsa)


def libraries(x_nD: Tensor, y_nD: Tensor) -> tuple[float, float]:
    """Compute with ckatorch and scipy."""
    from scipy.spatial.distance import pdist
    from scipy.stats import pearsonr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ckatorch.core import cka_base
    cka = cka_base(x_nD, y_nD, kernel="linear")
    rsa = pearsonr(*(pdist(rows_nD.double().numpy(), "cosine") for rows_nD in (x_nD, y_nD)))
    return float(cka), float(rsa.statistic)


FORMS = {"ours": ours, "definition": definition, "libraries": libraries}


def measure(form: str) -> dict:
    """Return median CPU seconds, peak MiB in addition to the features, and the values of one form, in this process."""
    torch.set_num_threads(1)
    FORMS[form](*features(1000))  # imports, first use of the libraries
    x_nD, y_nD = features(IMAGES)
    before_mib = peak_mib()
    seconds = []
    for _ in range(REPEATS[form]):
        start = time.process_time()
        values = FORMS[form](x_nD, y_nD)
        seconds.append(time.process_time() - start)
    return {"seconds": statistics.median(seconds), "peak_mib": peak_mib() - before_mib, "values": values}


def peak_mib() -> float:
    """Return the peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def metric_rows() -> list[dict]:
    """Measure one row for each form with n x n matrices."""
    measured = {}
    for form in FORMS:
        # on Linux a child inherits the peak memory of the process that forks it; the shell in between has a small peak
        command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, __file__, form]
        measured[form] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ours_is = measured.pop("ours")
    rows = []
    for form, baseline in measured.items():
        differences = [abs(a - b) for a, b in zip(ours_is["values"], baseline["values"], strict=True)]
        if max(differences) > 1e-9:
            raise RuntimeError(f"{form}: CKA and RSA {baseline['values']} and ours {ours_is['values']} must agree")
        against = {"definition": "the n x n definitions", "libraries": "ckatorch and scipy"}[form]
        rows.append(
            {
                "name": f"CKA and RSA, n={IMAGES}, d={FEATURES}, against {against}",
                "ours": ours_is["seconds"],
                "baseline": baseline["seconds"],
                "ratio": baseline["seconds"] / ours_is["seconds"],
                "goal": GOAL,
                "unit": "CPU s",
                "ours_peak_mib": ours_is["peak_mib"],
                "baseline_peak_mib": baseline["peak_mib"],
            }
        )
    return rows


if __name__ == "__main__":
    safe_streams()
    if len(sys.argv) == 2:  # started by metric_rows
        print(json.dumps(measure(sys.argv[1])))
    else:
        for row in metric_rows():
            values = (f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items())
            print("  ".join(values))
