"""Simulate gradient descent on similarities for CL and NSCL, and compare with the a-priori bound of arXiv 2510.08852.

The bound is proved for these dynamics (theory/descent.py), not for a network; `coupled bounds` shows it for a run.
The points are random unit vectors with equal classes. Writes similarity_descent.csv and a figure. A violation of the
bound, which has a probability of at most 5 % per temperature, is printed, and the exit status is 1.
"""

from argparse import Namespace
from collections.abc import Sequence
from math import log

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis import theory_parsers
from coupled.analysis.driver import run_program, tracked
from coupled.analysis.plots.drawing import save
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selections.styles import COLOURS
from coupled.analysis.theory.alignment_floors import DELTA, ROUNDING
from coupled.analysis.theory.bound_formulas import alignment_floor, log_gradient_gap, log_similarity_distance
from coupled.analysis.theory.descent import centred, correlation, descend, off_diagonal
from coupled.analysis.tidy_csv import write_table
from coupled.monitoring.terminal import say
from coupled.stream.seeds import philox

TABLE = "similarity_descent.csv"
WIDTH = 64  # of the random vectors
RECORDED = 40  # steps in the table
Row = tuple[object, ...]


def rows_of(temperature: float, options: Namespace) -> list[Row]:
    """Rows of similarity_descent.csv for one temperature; every temperature has the same start and batches."""
    images, batch, steps = options.num_images, options.batch_size, options.steps
    generator = np.random.Generator(philox(options.seed, "similarity_descent"))
    vectors = generator.normal(size=(images, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.arange(images) % options.classes
    share = float(np.bincount(labels).max()) / images
    gap = log_gradient_gap(batch, steps, temperature, share, DELTA)
    recorded = {0, *np.unique(np.geomspace(1, steps, RECORDED).round().astype(int)).tolist()}
    settings = {"batch": batch, "steps": steps, "lr": options.lr, "temperature": temperature, "generator": generator}
    rows: list[Row] = []
    for step, (cl, nscl) in enumerate(descend(vectors @ vectors.T, labels, **settings)):
        if step not in recorded:
            continue
        distance = float(np.linalg.norm(cl - nscl))
        bound = log_similarity_distance(options.lr * step, batch, temperature, gap)
        for of, transform in (("cka", centred), ("rsa", off_diagonal)):
            one, other = transform(cl), transform(nscl)
            log_rho = bound - log(np.linalg.norm(one))
            floor, measured = alignment_floor(log_rho), correlation(one, other)
            below = distance <= np.exp(min(bound, 700.0)) + ROUNDING and measured >= floor - ROUNDING
            words = ("yes" if log_rho >= 0 else "no", "yes" if below else "no")
            about = (temperature, batch, step, of, options.lr * step, distance, bound / log(10))
            rows.append((*about, floor, measured, log_rho / log(10), *words))
    return rows


def simulated(options: Namespace) -> pd.DataFrame:
    """The rows of similarity_descent.csv. Raises ValueError for a batch or a number of classes that does not fit."""
    if options.batch_size > options.num_images:
        raise ValueError(f"batch_size: got {options.batch_size}; at most num_images = {options.num_images} is allowed")
    if not 2 <= options.classes <= options.num_images:
        raise ValueError(f"classes: got {options.classes}; 2 to num_images = {options.num_images} are allowed")
    temperatures = list(dict.fromkeys(options.temperatures))
    rows = [row for each in tracked(temperatures, "temperatures") for row in rows_of(each, options)]
    return pd.DataFrame(rows, columns=list(SCHEMAS[TABLE].columns))


def draw(rows: pd.DataFrame) -> Figure:
    """Distance of the similarity matrices, CKA and RSA over the sum of learning rates, with their bounds dotted."""
    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    of_distance, *of_scores = figure.subplots(1, 3)
    for index, (temperature, part) in enumerate(rows[rows["step"] > 0].groupby("temperature")):
        colour = COLOURS[index % len(COLOURS)]
        once = part[part["of"] == "cka"]
        of_distance.loglog(once["rates"], once["distance"], color=colour, label=rf"$\tau$ = {temperature:g}")
        visible = once[once["log10_bound"] < 6]
        of_distance.loglog(visible["rates"], 10 ** visible["log10_bound"], ":", color=colour)
        for axes, of in zip(of_scores, ("cka", "rsa"), strict=True):
            one = part[part["of"] == of]
            axes.semilogx(one["rates"], one["measured"], color=colour)
            told = one[one["vacuous"] == "no"]
            axes.semilogx(told["rates"], told["value"], ":", color=colour)
            axes.set_title(f"{of.upper()} of CL and NSCL (dotted: bound)", fontsize="medium")
    of_distance.set_title("distance of the similarities (dotted: bound)", fontsize="medium")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4, alpha=0.5)
        axes.set_xlabel("sum of the learning rates")
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    return figure


def similarity_descent(options: Namespace) -> int:
    """Write the table and the figure; the exit status is 1 if a row violates the bound."""
    found = simulated(options)
    write_table(options.output / TABLE, found)
    (options.output / "figures").mkdir(exist_ok=True)
    for path in (options.output / TABLE, *save(draw(found), options.output / "figures" / "similarity_descent")):
        say(path)
    wrong, vacuous = (int((found[column] == word).sum()) for column, word in (("holds", "no"), ("vacuous", "yes")))
    say(f"{len(found)} bounds: {vacuous} vacuous, {wrong} violated")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(similarity_descent, theory_parsers.similarity_descent(), arguments)
