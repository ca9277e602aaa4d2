"""Lower bounds (floors) of CKA and RSA, from the measured distance of the similarity matrices or the learning rates.

CKA correlates centred Gram matrices; RSA correlates the cosine similarities of all pairs after their mean is
subtracted. Both are cosines of two vectors k, l, so the bounds need rho = ||k - l|| / ||k|| and ||k||. These are
computed from the D x D sums of the pair metrics, without an n x n matrix. Source of the bounds: arXiv 2510.08852.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan, log, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from coupled.analysis.tables import read_table
from coupled.analysis.theory.bound_formulas import (
    alignment_floor,
    log_gradient_gap,
    log_similarity_distance,
    sharp_alignment_floor,
)
from coupled.analysis.theory.bounds_of_tables import COLUMNS, Row, cells
from coupled.config.arm_sections import SECTIONS
from coupled.config.controls import random_sources
from coupled.config.metric_registry import PairMetric
from coupled.config.schema import Settings
from coupled.metrics.pair._sums import Moments
from coupled.metrics.pair.cka import squared_norm
from coupled.metrics.pair.rsa import covariance
from coupled.metrics.undefined import Undefined

DELTA = 0.05  # the probability with which the a-priori bound may fail
ROUNDING = 1e-9  # rounding error by which a score may lie below its floor


INF = float("inf")


class Rates(NamedTuple):
    """The number of steps of a run up to an epoch, and the sum of their learning rates."""

    steps: int
    total: float


def rates_by_epoch(rows: Sequence[Mapping[str, Any]]) -> dict[int, Rates]:
    """Return `Rates` after each epoch of steps.csv, including epoch 0."""
    found = {0: Rates(0, 0.0)}
    now = found[0]
    for row in rows:
        now = Rates(now.steps + 1, now.total + float(row["lr"]))
        found[int(row["epoch"])] = now
    return found


def read_rates(run: Path) -> dict[int, Rates]:
    """Return `Rates` after each epoch of the run. Raises ValueError if steps.csv is missing or has a wrong cell."""
    path = run / "steps.csv"
    if not path.exists():
        raise ValueError(f"{path}: expected a table of steps, found no file")
    rows = read_table(path, ("epoch", "lr")).reindex(columns=["epoch", "lr"]).to_dict("records")
    return rates_by_epoch([{str(name): cell for name, cell in row.items()} for row in rows])


def log_distances(settings: Settings, arm: str, rates: Rates, largest_share: float) -> float:
    """Return the log of the a-priori bound on the distance of the similarity matrices of `arm` and the reference."""
    batch = settings.batch.size
    temperature = settings.arms[arm].options.get("temperature", settings.temperature)
    gap = log_gradient_gap(batch, max(rates.steps, 1), temperature, largest_share, DELTA)
    return log_similarity_distance(rates.total, batch, temperature, gap)


def has_apriori_bound(settings: Settings, *pair: str) -> bool:
    """Whether the a-priori bound applies to this pair of arms: dcl and nscl, with equal options and random sources.

    Both have the shared optimizer, because the bound is computed from the shared learning rate in steps.csv, and the
    shared projector and recipe of the views, because their similarities must be equal at the start.

    run.json includes all defaults, so DCL has an option `similarity`, which NSCL lacks.
    """
    arms = {name: arm.model_dump() for name, arm in settings.arms.items()}
    used, objectives = random_sources(arms), {settings.arms[arm].objective for arm in pair}
    options = [{"similarity": "cosine", **settings.arms[arm].options} for arm in pair]
    alike = options[0] == options[1] and used[pair[0]] == used[pair[1]]
    all_shared = not any(getattr(settings.arms[arm], section) for arm in pair for section in SECTIONS)
    perturbed = any(settings.arms[arm].perturb for arm in pair)
    return objectives == {"dcl", "nscl"} and alike and all_shared and not perturbed


def floors(values: Mapping[str, float], log_apriori: float | None) -> Iterator[tuple[str, str, float, float, float]]:
    """Yield (bound, of, floor, measured score, log rho) of a pair at one layer. None: no a-priori bound.

    Raises ValueError if a score lies below an a-posteriori floor.
    """
    for of in ("cka", "rsa"):
        measured, rho = values[of], values[f"rho_{of}"]
        if isnan(measured) or isnan(rho):
            continue
        log_rhos = {"a_posteriori": log(rho) if rho > 0 else -float("inf")}
        log_rhos["a_posteriori_sharp"] = log_rhos["a_posteriori"]
        if log_apriori is not None:
            log_rhos["a_priori"] = log_apriori - values[f"log_norm_{of}"]
        for bound, log_rho in log_rhos.items():
            floor = (sharp_alignment_floor if bound.endswith("sharp") else alignment_floor)(log_rho)
            if bound != "a_priori" and not measured >= floor - ROUNDING:
                raise ValueError(
                    f"{of} is {measured:.12g}, below its {bound} bound {floor:.12g}, which contradicts the theorem"
                )
            yield bound, of, floor, measured, log_rho


def floor_rows(values: Mapping[str, float], log_rho: float | None, place: Mapping[str, object]) -> list[Row]:
    """Return the rows of one pair of arms at one layer. Raises ValueError for a score below an a-posteriori floor."""
    try:
        found = list(floors(values, log_rho))
    except ValueError as error:
        where = f"epoch {place['epoch']}, {place['split']}, '{place['arm']}', layer {place['module']}"
        raise ValueError(f"{where}: {error}") from None
    rows = []
    for bound, of, floor, measured, log_distance in found:
        what = {
            "value": floor,
            "measured": measured,
            "log10_rho": log_distance / log(10),
            "vacuous": "yes" if log_distance >= 0 else "no",
            "holds": "yes" if measured >= floor - ROUNDING else "no",
        }
        rows.append(cells(COLUMNS, **place, bound=bound, of=of, **what))
    return rows


def rho_cka(xx: Moments, yy: Moments, xy: Moments) -> float:
    """||K - L||_F / ||K||_F of the centred Gram matrices K of X [n, D] and L of Y [n, E]. Undefined for constant X."""
    return _ratio(squared_norm(xx), squared_norm(yy), squared_norm(xy))


def rho_rsa(xx: Moments, yy: Moments, xy: Moments) -> float:
    """As `rho_cka`, for the cosine similarities of all pairs i != j minus their mean. Undefined if equal in X."""
    return _ratio(covariance(xx), covariance(yy), covariance(xy))


def log_norm_cka(xx: Moments, yy: Moments, xy: Moments) -> float:
    """log of ||K||_F of the centred matrix K of cosine similarities. Undefined for constant X."""
    return _half_log(squared_norm(xx))


def log_norm_rsa(xx: Moments, yy: Moments, xy: Moments) -> float:
    """log of the norm of the cosine similarities of all ordered pairs i != j minus their mean. Undefined for 0."""
    return _half_log(covariance(xx))


def _ratio(of_x: float, of_y: float, of_both: float) -> float:
    if of_x <= 0:
        return Undefined("constant features")
    return sqrt(max(0.0, of_x + of_y - 2 * of_both) / of_x)


def _half_log(square: float) -> float:
    return log(square) / 2 if square > 0 else Undefined("constant features")


DISTANCES = {  # as pair metrics, so that the same pass over the images collects their sums
    name: PairMetric(name, span, "lower", frozenset(), transform, None, value)
    for name, transform, span, value in (
        ("rho_cka", "plain", (0.0, INF), rho_cka),
        ("rho_rsa", "unit", (0.0, INF), rho_rsa),
        ("log_norm_cka", "unit", (-INF, INF), log_norm_cka),
        ("log_norm_rsa", "unit", (-INF, INF), log_norm_rsa),
    )
}
