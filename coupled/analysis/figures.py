"""Draw the figures of a run from the tables of the other analysis programs, as PNG and PDF.

The program writes every figure whose tables exist to analysis/figures of the run. Runs that differ only in their seeds
are drawn as one: mean and one standard deviation over seeds. Other runs are drawn side by side, with the labels
run:arm. The folder of a sweep stands for all its runs. The figures of several runs go to analysis/figures of the
sweep's folder, or of the deepest folder that has all runs. For a missing table the program names the command that
writes it. A metric that was not computed has no panel; the program then names the command that
adds it.
Figures:
* drift: weight gap, CKA and RSA of h on test, over epochs. If the run has twins of the reference (arms with the same
  objective, options and random draws), a grey band shows how much twins differ: the noise floor. Its height is above 0
  only if a twin was perturbed (`perturb`). Bars are confidence intervals from `coupled alignment --confidence`.
* matrix: CKA of h on test for every pair of arms, at the last epoch. Needs `coupled alignment --compare all`.
* layers_alignment, layers_gap: heat maps, layer by epoch, of CKA on test and of the weight gap; of more than 24 layers
  stage by epoch. Of several seeds they show means, and name the largest standard deviation of a cell.
* quality: metrics of quality.csv for h on test, over epochs, including the reference.
* collapse: metrics of collapse.csv on test, over epochs, including symmetry and alignment of predictors.
* gap_alignment: alignment against weight gap, one path per arm.
* alignment_accuracy: accuracy of h on test minus the reference's, against CKA and RSA. Needs `nccc` or `linear_probe`.
* merging: accuracy of the weights between the reference and each arm. Needs `coupled merge`.
* options: CKA and RSA of h on test and the weight gap against each option of an objective of which three or more arms
  have different numbers, at the last epoch. Drawn only for runs with such arms.
* reliability: accuracy against confidence of the classifiers on test, at the last epoch. Needs `coupled calibration`.
* corruption_errors: errors on corrupted test images, at the last epoch. Needs `coupled robustness`.
* pair_metrics: every pair metric of test_alignment.csv for h, over epochs.
* mutual_knn: neighbours in common over their number. Needs `coupled alignment --mutual-knn`.
* class_alignment: pair metrics of the images of each class, at the last epoch. Needs `coupled alignment --per-class`.
* barrier: losses and accuracy along the line between the weights of the reference and each arm, and the height of the
  barrier over epochs. Needs `coupled barrier`.
* gradients: size of the gradient of each contrastive loss against the cosine of a pair. Needs `coupled gradients`.
* spectra: eigenvalues over epochs of h, z, the inputs of a predictor (F), and its matrix W, one row of panels per arm.
* duality: the criteria L_c and L_nc of z, and norms of z and h, over epochs.
* angles: angles of the weights and of h on test (arccos of CKA and RSA) to the reference, over epochs.
The reference is `cl`; in a run without `cl`, the reference of the tables. An arm has the same colour in all figures
(see selections/styles.py). A damaged table is reported, and the exit status is 2.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from coupled.analysis import output_parsers
from coupled.analysis.driver import run_program
from coupled.analysis.plots.accuracy_figures import alignment_accuracy, merging
from coupled.analysis.plots.arm_figures import collapse, quality
from coupled.analysis.plots.classifier_figures import corruption_errors, reliability
from coupled.analysis.plots.drawing import save
from coupled.analysis.plots.experiment_tables import experiment_tables
from coupled.analysis.plots.figure_tables import FigureTables, default_reference, figure_tables
from coupled.analysis.plots.loss_figures import barrier, gradients
from coupled.analysis.plots.measure_figures import class_alignment, mutual_knn, pair_metrics
from coupled.analysis.plots.option_figures import options
from coupled.analysis.plots.pair_figures import (
    angles,
    drift,
    gap_alignment,
    layers_alignment,
    layers_gap,
    matrix,
    missing_panels,
)
from coupled.analysis.plots.spectrum_figures import duality, spectra
from coupled.analysis.run import USUAL_REFERENCE, Run
from coupled.analysis.selections.options import option_paths
from coupled.analysis.several_runs import open_runs, results_folder
from coupled.analysis.tables import BadTableError
from coupled.monitoring.terminal import say

FIGURES: dict[str, Callable[[FigureTables], Figure]] = {
    figure.__name__: figure
    for figure in (
        drift,
        matrix,
        layers_alignment,
        layers_gap,
        quality,
        collapse,
        gap_alignment,
        alignment_accuracy,
        angles,
        merging,
        reliability,
        corruption_errors,
        pair_metrics,
        mutual_knn,
        class_alignment,
        barrier,
        gradients,
        spectra,
        duality,
    )
}


def draw(run: Run, reference: str | None = None) -> list[Path]:
    """Write every figure whose tables exist to analysis/figures of the run.

    Args:
        run: the run.
        reference: the arm that the others are compared with (default: `cl`, or the reference of the tables).

    Returns:
        The paths of the PNG and PDF files.

    Raises:
        ValueError: if the reference is not an arm of the run, a table is damaged, or no figure can be drawn.
    """
    results = dict(draw_each(figure_tables(run, reference), run.tables / "figures"))
    paths = [path for result in results.values() if isinstance(result, list) for path in result]
    errors = {name: result for name, result in results.items() if isinstance(result, ValueError)}
    for name, error in errors.items():
        if isinstance(error, BadTableError) or not paths:
            raise type(error)(f"{name}: {error}") from error
    return paths


def draw_each(tables: FigureTables, folder: Path) -> Iterator[tuple[str, list[Path] | ValueError]]:
    """Yield the name of each figure with the files that were written to `folder`, or the reason why there are none."""
    of_options = {options.__name__: options} if option_paths(tables.arm_settings) else {}
    for name, figure in {**FIGURES, **of_options}.items():
        try:
            drawing = figure(tables)
        except ValueError as error:
            yield name, error
        else:
            yield name, save(drawing, folder / name, tables.note)


def figures(options: Namespace) -> int:
    """Draw the figures and print their paths. The exit status is 2 if a table is damaged or no figure was drawn."""
    runs = open_runs([path for paths in options.run or () for path in paths])
    folder = options.output or results_folder(runs) / "figures"
    reference = options.reference or default_reference(runs[0])
    if not options.reference and reference != USUAL_REFERENCE:
        say(f"reference: {reference} (the run has no arm '{USUAL_REFERENCE}'; --reference ARM chooses another)")
    written: list[Path] = []
    damaged = False
    missing: dict[str, list[str]] = {}  # the figures that lack the same table
    tables = experiment_tables(runs, reference)
    for name, result in draw_each(tables, folder):
        if isinstance(result, ValueError):
            missing.setdefault(str(result), []).append(name)
            damaged |= isinstance(result, BadTableError)
        else:
            written += result
    for why, names in missing.items():
        say(f"{', '.join(names)}: not drawn: {why}", file=sys.stderr)
    for path in written:
        say(path)
    for note in filter(None, map(missing_panels, tables.runs)):
        say(note, file=sys.stderr)
    return 0 if written and not damaged else 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(figures, output_parsers.figures(), arguments)
