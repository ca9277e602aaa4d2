"""The command lines of the analysis programs, one function per program.

`--help` imports this module, so it imports no large library.
"""

from pathlib import Path

from coupled.config.by_name import known
from coupled.config.command_line import Parser, command_parser, positive, positive_number

CACHE_GIB = 10.0
EVERY_PAIR = ", or all for every pair of arms"
SPLITS, OUTPUTS = ("train", "test"), ("h", "z")  # as in datasets and layers, which need torch
PAIR_METRICS = ("cka", "cka_debiased", "procrustes", "rsa", "rsa_correlation")  # the default of `coupled alignment`
NEED_NO_CODE = ("weight-gap", "figures")  # these programs never import user-defined code


def weight_gap() -> Parser:
    """`coupled weight-gap`."""
    about = "Distances and angles between the arms' weights, tensor by tensor, at every snapshot. Needs no GPU."
    examples = ["--compare nscl", "--run-dir runs/demo --compare all --epochs 0:20:5"]
    files = [
        "weight_gap.csv               one row per tensor, stage and encoder",
        "weight_gap_growth.csv        curves fitted to the gap over the epochs",
        "weight_gap_permutation.csv   with --align permutation, instead of these two",
        "weight_gap_filters.csv       with --unit-filters, instead of these two",
    ]
    parser = command_parser("weight-gap", about, examples, files)
    _add_pairs(parser, EVERY_PAIR)
    _add_against(parser)
    _add_table(parser)
    align = "permutation: first reorder the arm's channels to match the reference best (default: none)"
    parser.add_argument("--align", choices=("none", "permutation"), default="none", help=align)
    parser.add_argument("--unit-filters", action="store_true", help="first divide each filter by its norm")
    return parser


def alignment() -> Parser:
    """`coupled alignment`."""
    about = (
        "Similarity of the arms' representations to the reference's, at every snapshot.\n"
        "Under torchrun the images are split over the processes."
    )
    examples = ["--layers stages --cross-layer", "--compare all --split test --layers h --confidence 1000"]
    files = [
        "train_alignment.csv, test_alignment.csv       one score per row",
        "train_cross_layer.csv, test_cross_layer.csv   with --cross-layer: CKA of every pair of layers",
        "<split>_class_alignment.csv                   with --per-class: scores of the images of each class",
        "<split>_mutual_knn.csv                        with --mutual-knn: curves over the number of neighbours",
        "cache/                                        with --cache: embeddings",
    ]
    parser = command_parser("alignment", about, examples, files)
    _add_pairs(parser, EVERY_PAIR)
    _add_against(parser)
    _add_table(parser)
    _add_split(parser)
    layers = "h, z, stem, modules of the encoder, or stages for the stem, all stages, h and z (default: h z)"
    parser.add_argument("--layers", nargs="+", metavar="LAYER", default=list(OUTPUTS), help=layers)
    parser.add_argument("--cross-layer", action="store_true", help="also compute the CKA of every pair of layers")
    names = ", ".join(known("coupled.metrics.pair"))
    metrics = f"one or more of {names} (default: {' '.join(PAIR_METRICS)})"
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help=metrics)
    parser.add_argument("--per-class", action="store_true", help="also compute the metrics of the images of each class")
    curves = "also compute mutual_knn with each of these numbers of neighbours, such as 1 5 10 20 50"
    parser.add_argument("--mutual-knn", nargs="+", type=positive, metavar="K", help=curves)
    confidence = "95 %% confidence interval over images (not of svcca): jackknife, R resamples (such as 1000)"
    parser.add_argument("--confidence", type=positive, metavar="R", help=confidence)
    _add_cache(parser)
    _add_images(parser)
    return parser


def quality() -> Parser:
    """`coupled quality`."""
    about = "Quality of each arm's representation: probes, class centres, few-shot, effective rank, class scatter."
    examples = ["--metrics nccc linear_probe", "--layers h --epochs 0,10,20 --dataset cifar100"]
    files = [
        "quality.csv    one value per row",
        "transfer.csv   with --dataset, instead of quality.csv: measured on another dataset",
        "cache/         with --cache: embeddings",
    ]
    parser = command_parser("quality", about, examples, files)
    _add_arms(parser)
    _add_table(parser)
    _add_split(parser, None, "default: both; test for classifiers, which with train are also scored on train")
    _add_outputs(parser)
    shots = "labelled train images per class of few_shot and few_shot_two_way (default: 1 5 10 20 50 100 500)"
    parser.add_argument("--shots", nargs="+", type=positive, metavar="M", help=shots)
    names = list(known("coupled.metrics.arm"))
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", default=names, help=f"default: {' '.join(names)}")
    other = (
        "measure on another dataset: its name, a folder with train/<class>/ and test/<class>/, or labels=coarse for"
        " another set of labels of the run's dataset (all its classes)"
    )
    parser.add_argument("--dataset", metavar="DATASET|FOLDER", help=other)
    add_dataset_root(parser)
    _add_cache(parser)
    _add_images(parser)
    return parser


def collapse() -> Parser:
    """`coupled collapse`."""
    about = "Dimensional collapse of each arm's representation: spread, effective rank, alignment, uniformity, spectra."
    files = ["collapse.csv   one value per row"]
    parser = command_parser("collapse", about, ["--split test", "--arms byol simsiam --epochs 0:20:5"], files)
    _add_arms(parser)
    _add_table(parser)
    _add_split(parser)
    _add_images(parser)
    return parser


def losses() -> Parser:
    """`coupled losses`."""
    about = "Every contrastive loss evaluated for every arm, and DCL - NSCL with its bounds."
    files = [
        "losses.csv             mean loss over the anchors",
        "loss_gap.csv           DCL - NSCL and its bounds",
        "loss_correlation.csv   correlation of DCL and NSCL over the epochs",
        "nscl_reached.csv       NSCL loss compared with the arms that minimise it",
    ]
    parser = command_parser("losses", about, ["--epochs 0:20:5", "--split test --temperatures 0.5 1"], files)
    _add_arms(parser)
    _add_table(parser)
    _add_split(parser)
    temperatures = "numbers above 0 (default: the run's, and 1 as in the paper)"
    parser.add_argument("--temperatures", nargs="+", type=positive_number, metavar="TAU", help=temperatures)
    _add_images(parser)
    return parser


def bounds() -> Parser:
    """`coupled bounds`."""
    about = "The papers' bounds, computed for a run and compared with the measured values."
    files = ["bounds.csv   one bound per row; reads quality.csv and weight_gap.csv"]
    parser = command_parser("bounds", about, ["--epochs 0:20:5", "--compare nscl --split test --layers h"], files)
    _add_pairs(parser)
    _add_table(parser)
    _add_split(parser)
    _add_outputs(parser)
    _add_images(parser)
    return parser


def verify() -> Parser:
    """`coupled verify`."""
    about = "Checks every file of a run; with --against also compares two runs. Exit status 1: there are findings."
    examples = ["--run-dir runs/demo", "--run-dir runs/a --against runs/b --output findings"]
    parser = command_parser("verify", about, examples, ["verify.csv   with --output: one finding per row"])
    _add_run(parser)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another run folder to compare with")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write verify.csv to (default: none)")
    _add_code(parser)
    return parser


def report() -> Parser:
    """`coupled report`."""
    about = "Writes one HTML page about a run, or about several runs side by side. The page needs no network."
    examples = ["--compute", "--run-dir runs/seed0 runs/seed1 --output both.html"]
    files = ["analysis/report.html   of the run or the sweep; with --compute also the missing CSV files"]
    parser = command_parser("report", about, examples, files)
    _add_runs(parser)
    parser.add_argument("--compute", action="store_true", help="first compute the missing tables")
    _add_code(parser)
    page = "page to write (default: analysis/report.html of the run, the sweep, or the folder that has all runs)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=page)
    return parser


def add_dataset_root(parser: Parser) -> None:
    """Add --dataset-root, the folder of a dataset that is not the run's."""
    root = "folder that holds the files of that dataset (default: the dataset's default folder)"
    parser.add_argument("--dataset-root", type=Path, metavar="DIR", help=root)


def _add_run(parser: Parser) -> None:
    where = "run folder (default: the newest one under runs/)"
    parser.add_argument("--run-dir", dest="run", type=Path, metavar="DIR", help=where)


def _add_runs(parser: Parser) -> None:
    where = "run folders, or folders of sweeps with all their runs (default: the newest run under runs/)"
    parser.add_argument("--run-dir", dest="run", nargs="+", action="append", type=Path, metavar="DIR", help=where)


def _add_pairs(parser: Parser, every_pair: str = "") -> None:
    _add_run(parser)
    which = f"arms to compare{every_pair} (default: every arm but the reference)"
    parser.add_argument("--compare", nargs="+", metavar="ARM", help=which)
    _add_reference(parser)


def _add_reference(parser: Parser) -> None:
    which = "reference arm, with which the others are compared (default: cl, or the run's first arm if there is no cl)"
    parser.add_argument("--reference", metavar="ARM", help=which)


def _add_against(parser: Parser) -> None:
    what = "another run: compare each arm with its arm of the same name; written to DIR/analysis/against/<folder>"
    parser.add_argument("--against", type=Path, metavar="RUN", help=what)


def _add_arms(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="arms to measure (default: all)")


def _add_table(parser: Parser, default: str = "all that every arm has") -> None:
    epochs = f"epochs such as 0,10,20 or first:last[:step], the last included (default: {default})"
    parser.add_argument("--epochs", metavar="LIST", help=epochs)
    skip = "skip missing and damaged snapshots, and print which"
    parser.add_argument("--skip-corrupt", action="store_true", help=skip)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: DIR/analysis)")


def _add_split(parser: Parser, default: tuple[str, ...] | None = SPLITS, text: str = "default: both") -> None:
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=default and list(default), help=text)


def _add_outputs(parser: Parser) -> None:
    layers = "h: embedding, z: projection (default: both)"
    parser.add_argument("--layers", nargs="+", choices=OUTPUTS, default=list(OUTPUTS), help=layers)


def _add_images(parser: Parser, default: str = "all") -> None:
    accept = "measure the images although they have changed since the run; every row records their digest"
    parser.add_argument("--accept-changed-images", action="store_true", help=accept)
    most = f"at most N images per split, always the same ones (default: {default})"
    parser.add_argument("--num-images", type=positive, metavar="N", help=most)
    device = "default: a GPU if there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=device)
    _add_code(parser)


def _add_code(parser: Parser) -> None:
    allow = "import the user-defined code that run.json names (see docs/your_own.md); read that code first"
    parser.add_argument("--allow-code", action="store_true", help=allow)


def _add_cache(parser: Parser) -> None:
    what = f"keep up to GIB gibibytes of embeddings in cache/ beside the tables (without a number: {CACHE_GIB:g})"
    parser.add_argument("--cache", nargs="?", const=CACHE_GIB, type=positive_number, metavar="GIB", help=what)
