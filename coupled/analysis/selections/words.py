"""Names of metrics in words for titles, and the values that a metric can have."""

import importlib
from collections.abc import Sequence

from coupled.config import by_name

METRICS = {
    "cka": "CKA",
    "cka_debiased": "debiased CKA",
    "rsa": "RSA",
    "rsa_correlation": "RSA, correlation distance",
    "rsa_spearman": "RSA, rank correlation",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "procrustes": "Procrustes similarity",
    "angle": "representation angle, degrees",
    "mutual_knn": "mutual k-NN",
    "linear_predictivity": "R² of the arm from the reference",
    "linear_predictivity_reverse": "R² of the reference from the arm",
    "nccc": "accuracy, nearest class centre",
    "linear_probe": "accuracy, linear probe",
    "knn": "accuracy, k-NN",
    "few_shot": "accuracy, few labels",
    "few_shot_two_way": "accuracy between two classes, few labels",
    "top1": "top-1 accuracy of the classifier",
    "top5": "top-5 accuracy of the classifier",
    "ece": "calibration error of the classifier",
    "nll": "negative log-likelihood of the classifier",
    "cdnv": "CDNV",
    "directional_cdnv": "directional CDNV",
    "root_cdnv": "root CDNV",
    "etf_deviation": "distance from a simplex ETF",
    "spread": "spread",
    "alignment": "distance of two views",
    "asymmetry": "asymmetry",
}


def words(metric: str) -> str:
    """The name of a metric in words; of an unknown one its own name without underscores."""
    return METRICS.get(metric, metric.replace("_", " "))


def limits(metric: str, kind: str) -> tuple[float, float]:
    """The lowest and the highest possible value of a metric; `kind` is pair or arm. Infinite for a user's metric."""
    package = f"coupled.metrics.{kind}"
    if metric not in by_name.known(package):
        return -float("inf"), float("inf")
    low, high = importlib.import_module(f"{package}.{metric}").RANGE
    return float(low), float(high)


def value_of_equal_arms(metric: str) -> float | None:
    """The value of a pair metric for two equal representations; None for a user's metric."""
    package = "coupled.metrics.pair"
    if metric not in by_name.known(package):
        return None
    module = importlib.import_module(f"{package}.{metric}")
    return float(module.RANGE[module.DIRECTION == "higher"])


def listed(parts: Sequence[str]) -> str:
    """The parts that are not empty, joined by commas."""
    return ", ".join(filter(None, parts))
