"""Compute the theory of DirectPred: fixed points, trajectories, theorems and a sweep, as CSV files and figures.

The model and its equations are in theory/directpred_model.py. Tables (columns: schemas.py):
* directpred_fixed_points.csv: fixed points for the weight decays, without an EMA and for three EMA rates.
* directpred_trajectories.csv: (p, s) of one mode without an EMA, from several starts.
* directpred_theorems.csv: theorem 1 for general matrices with an EMA target, theorem 3 for symmetric ones without.
* directpred_sweep.csv: the end of one mode over a grid of weight decay and EMA rate; the target starts equal to W.
With --run-dir the program writes only directpred_run.csv and its figure: the matrices of every snapshot of a run with a
linear encoder, beside lemma 1 and the decoupled modes from the same start (theory/directpred_run.py).
"""

from argparse import Namespace
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd

from coupled.analysis import theory_parsers
from coupled.analysis.driver import run_program, tracked
from coupled.analysis.plots import directpred_figures, directpred_run_figure
from coupled.analysis.plots.drawing import save
from coupled.analysis.run import Run, open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.theory import directpred_model as theory
from coupled.analysis.theory.directpred_model import Array, Model
from coupled.analysis.theory.directpred_run import check_run, rows_of, second_moments
from coupled.analysis.tidy_csv import write_table
from coupled.monitoring.terminal import say
from coupled.stream.seeds import philox

BETAS = (0.01, 0.1, 1.0)  # of the fixed points
STARTS = tuple((p, s) for p in (-0.4, 0.05, 0.4, 0.9) for s in (0.1, 0.8))  # of the trajectories
TIMES = 40 * np.linspace(0, 1, 201) ** 2  # dense at the start
OF_THEORY = {"eta", "alpha_p", "sigma2", "start_p", "start_s", "time", "points"}  # options without --run-dir
OF_RUN = ("accept_changed_images", "allow_code")
VANISHED = 1e-6  # a mode with a smaller s has collapsed
Row = tuple[object, ...]


def fixed_point_rows(model: Model, etas: Sequence[float]) -> list[Row]:
    """Rows of directpred_fixed_points.csv. Without weight decay the fixed points fill lines, so eta = 0 has none."""
    rows: list[Row] = []
    for eta in filter(None, etas):
        for beta in (None, *BETAS):
            here = model._replace(eta=eta, beta=beta or model.beta)
            for each in theory.plane_fixed_points(here) if beta is None else theory.fixed_points(here):
                values = (each.p, each.s, each.tau, each.eigenvalue, "yes" if each.stable else "no")
                rows.append((model.alpha_p, model.sigma2, eta, beta, each.point, *values))
    return rows


def trajectory_rows(model: Model, etas: Sequence[float]) -> list[Row]:
    """Rows of directpred_trajectories.csv."""
    rows: list[Row] = []
    for eta in etas:
        here = model._replace(eta=eta)
        for index, start in enumerate(STARTS, 1):
            p, s = theory.integrate(here, theory.plane_field, start, TIMES)
            s = np.maximum(s, 0.0)  # rounding below 0 at the end of a collapse
            for time, at_p, at_s in zip(TIMES.tolist(), p.tolist(), s.tolist(), strict=True):
                about = (model.alpha_p, model.sigma2, eta, index, time)
                rows.append((*about, at_p, at_s, at_s - at_p**2 / model.alpha_p))
    return rows


def theorem_rows(model: Model, etas: Sequence[float]) -> list[Row]:
    """Rows of directpred_theorems.csv, for seeded matrices of five rows."""
    from scipy.integrate import cumulative_trapezoid

    generator, size = np.random.Generator(philox(0, "directpred_theory")), 5
    W_p, W, W_a = (generator.normal(size=(size, size)) / sqrt(size) for _ in range(3))
    rows: list[Row] = []
    for eta in etas:
        here = model._replace(eta=eta)
        p, w, _ = theory.integrate(here, theory.matrix_field, [W_p, W, W_a], TIMES)
        invariant = norms(w @ w.transpose(0, 2, 1) - p.transpose(0, 2, 1) @ p / here.alpha_p)
        by_theorem = np.exp(-2 * eta * TIMES) * invariant[0]
        p, f = theory.integrate(here, theory.symmetric_field, [(W_p + W_p.T) / 2, W @ W.T], TIMES)
        commutator = norms(f @ p - p @ f)
        lowest = [np.linalg.eigvalsh(theory.commutator_rate(here, *pair)).min() for pair in zip(p, f, strict=True)]
        limit = np.exp(-2 * cumulative_trapezoid(lowest, TIMES, initial=0)) * commutator[0]
        for of, measured, value in (("invariant", invariant, by_theorem), ("commutator", commutator, limit)):
            for time, one, other in zip(TIMES.tolist(), measured.tolist(), value.tolist(), strict=True):
                rows.append((model.alpha_p, model.sigma2, eta, of, time, one, other))
    return rows


def norms(matrices: Array) -> Array:
    """The Frobenius norm of each matrix."""
    return np.asarray(np.linalg.norm(matrices, axis=(1, 2)), float)


def sweep_rows(model: Model, points: int, start_p: float, start_s: float, end: float) -> list[Row]:
    """Rows of directpred_sweep.csv: eta up to 1.31 times the largest decay, beta from 0.01 to 10."""
    rows: list[Row] = []
    w = sqrt(start_s)
    for eta in tracked(np.linspace(0, 1.31 * model.largest_decay, points + 1)[1:].tolist(), "weight decays"):
        for beta in np.geomspace(0.01, 10, points).tolist():
            here = model._replace(eta=eta, beta=beta)
            ends = theory.integrate(here, theory.mode_field, [start_p, w, w], np.array([0.0, end]))
            p, w_t, _ = (float(each[-1]) for each in ends)
            about = (model.alpha_p, model.sigma2, eta, beta, start_p, start_s, end)
            rows.append((*about, p, w_t**2, "yes" if w_t**2 < VANISHED else "no"))
    return rows


def tables(options: Namespace) -> dict[str, pd.DataFrame]:
    """The four tables by file name."""
    model = Model(options.alpha_p, 0.0, 1.0, options.sigma2)
    etas = list(dict.fromkeys(options.eta))
    rows = {
        "directpred_fixed_points.csv": fixed_point_rows(model, etas),
        "directpred_trajectories.csv": trajectory_rows(model, etas),
        "directpred_theorems.csv": theorem_rows(model, etas),
        "directpred_sweep.csv": sweep_rows(model, options.points, options.start_p, options.start_s, options.time),
    }
    return {name: pd.DataFrame(each, columns=list(SCHEMAS[name].columns)) for name, each in rows.items()}


def run_table(run: Run, accept_changed_images: bool = False) -> pd.DataFrame:
    """The rows of directpred_run.csv. Raises ValueError if the run does not fit the linear model."""
    arms = check_run(run)
    views, digest = second_moments(run, accept_changed_images)
    say(f"views of {run.path}: c = {views.scale:.4g}, sigma^2 = {views.sigma2:.4g} (X is not isotropic; see the help)")
    rows = [row for arm in tracked(arms, "arms") for row in rows_of(run, arm, views, digest)]
    return pd.DataFrame(rows, columns=list(SCHEMAS["directpred_run.csv"].columns))


def write(found: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write tables to a folder and return their paths."""
    for name, table in found.items():
        write_table(folder / name, table)
    return [folder / name for name in found]


def directpred_theory(options: Namespace) -> None:
    """Write the tables and the figures, and print their paths."""
    if options.run is None:
        folder, found = options.output or Path("directpred_theory"), tables(options)
        figures = directpred_figures.draw(found)
    else:
        run = open_run(options.run, options.allow_code)
        folder, table = options.output or run.tables, run_table(run, options.accept_changed_images)
        found, figures = {"directpred_run.csv": table}, {"directpred_run": directpred_run_figure.draw(table)}
    paths = write(found, folder)
    (folder / "figures").mkdir(exist_ok=True)
    for name, figure in figures.items():
        paths += save(figure, folder / "figures" / name)
    for path in paths:
        say(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = theory_parsers.directpred_theory()

    def program(options: Namespace) -> None:
        idle = sorted(parser.given & OF_THEORY) if options.run else [key for key in OF_RUN if getattr(options, key)]
        if idle:
            use = "with" if options.run else "without"
            raise ValueError(f"--{idle[0].replace('_', '-')}: not used {use} --run-dir; remove it")
        directpred_theory(options)

    return run_program(program, parser, arguments)
