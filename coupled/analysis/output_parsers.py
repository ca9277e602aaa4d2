"""The command lines of figures, of the programs of two arms' weights and of gradients, and of those that export a run.

`--help` imports this module, so it imports no large library.
"""

from pathlib import Path

from coupled.analysis.parsers import (
    EVERY_PAIR,
    OUTPUTS,
    SPLITS,
    _add_arms,
    _add_code,
    _add_images,
    _add_outputs,
    _add_pairs,
    _add_reference,
    _add_run,
    _add_runs,
    _add_split,
    _add_table,
    add_dataset_root,
)
from coupled.config.command_line import Parser, command_parser

METHODS = ("umap", "tsne", "pca")
FORMATS = ("timm", "torchvision", "onnx", "huggingface")
MAP_IMAGES = 2000
POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the line between two arms
BATCH_NORM_IMAGES = 2048
CLASSIFIERS = ("nccc", "knn")  # of merged arms, by default
BARRIER_CLASSIFIERS = ("nccc",)
GRADIENT_IMAGES = 2048


def figures() -> Parser:
    """`coupled figures`."""
    about = "The figures of a run, or of several runs, from the CSV files that the other commands write."
    files = ["analysis/figures/*.png, *.pdf   every figure whose CSV files exist; with --output in its folder"]
    examples = ["--run-dir runs/demo", "--run-dir runs/seed0 runs/seed1 --output figures"]
    parser = command_parser("figures", about, examples, files)
    _add_runs(parser)
    _add_reference(parser)
    folder = "folder of the figures (default: analysis/figures of the run, the sweep, or the folder that has all runs)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=folder)
    return parser


def merge() -> Parser:
    """`coupled merge`."""
    about = (
        "Accuracy of the weights between two arms, (1 - a) reference + a arm, at every snapshot.\n"
        "Mean and variance of every batch norm are measured again at each point."
    )
    examples = ["--epochs 0,10,20", "--compare nscl --points 0 0.5 1 --metrics nccc --batch-norm-images 0"]
    files = ["merge.csv   one value per row"]
    parser = command_parser("merge", about, examples, files)
    _add_pairs(parser, EVERY_PAIR)
    _add_table(parser)
    _add_outputs(parser)
    _add_line(parser, CLASSIFIERS)
    _add_images(parser)
    return parser


def barrier() -> Parser:
    """`coupled barrier`."""
    about = (
        "Losses and accuracy of the weights between two arms, (1 - a) reference + a arm, at every snapshot, and the\n"
        "height of the barrier between them. Mean and variance of every batch norm are measured again at each point."
    )
    examples = ["--epochs 0,10,20 --split test", "--compare nscl --epochs 20 --align permutation"]
    files = [
        "barrier.csv          one value per row, and its excess over the line between both ends",
        "barrier_height.csv   the largest excess of each curve",
    ]
    parser = command_parser("barrier", about, examples, files)
    _add_pairs(parser, EVERY_PAIR)
    _add_table(parser)
    _add_split(parser)
    _add_line(parser, BARRIER_CLASSIFIERS)
    align = "permutation: first reorder the arm's channels to match the reference best (default: none)"
    parser.add_argument("--align", choices=("none", "permutation"), default="none", help=align)
    _add_images(parser)
    return parser


def gradients() -> Parser:
    """`coupled gradients`."""
    about = (
        "Size of each contrastive loss's gradient with respect to the projections, by cosine similarity of the pairs:\n"
        "do hard positives and hard negatives have large gradients?"
    )
    files = ["gradients.csv   one bin of the cosine similarity per row"]
    parser = command_parser("gradients", about, ["--epochs 0,10,20 --split test", "--arms cl nscl"], files)
    _add_arms(parser)
    _add_table(parser)
    _add_split(parser)
    _add_images(parser, str(GRADIENT_IMAGES))
    return parser


def _add_line(parser: Parser, classifiers: tuple[str, ...]) -> None:
    points = f"positions a from 0 (the reference) to 1 (the arm) (default: {' '.join(f'{each:g}' for each in POINTS)})"
    parser.add_argument("--points", nargs="+", type=float, metavar="A", default=list(POINTS), help=points)
    metrics = f"classifiers of `coupled quality` (default: {' '.join(classifiers)})"
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", default=list(classifiers), help=metrics)
    norms = (
        "train images on which batch norms are measured again; 0: interpolate the running averages"
        f" (default: {BATCH_NORM_IMAGES})"
    )
    parser.add_argument("--batch-norm-images", type=int, metavar="N", default=BATCH_NORM_IMAGES, help=norms)


def embed() -> Parser:
    """`coupled embed`."""
    about = (
        "Embeddings by one arm of the run's images, of another dataset, or of a folder of images.\n"
        "With --project: two-dimensional maps of the same images by several arms at several epochs."
    )
    examples = [
        "--arm nscl --images photos --output photos.parquet",
        "--project umap --arms cl nscl --epochs 0,10,100 --split test",
    ]
    files = [
        "--output FILE      .parquet, .csv, or .npy with a .images.csv beside it: one row per image",
        "map.csv            with --project, in --output DIR (default: analysis/ of the run): one point per row",
        "figures/map.png    with --project, in the same folder, and map.pdf: columns are arms, rows are epochs",
    ]
    parser = command_parser("embed", about, examples, files)
    _add_run(parser)
    parser.add_argument("--arm", metavar="ARM", help="the arm that embeds (default: the run's only arm)")
    parser.add_argument("--epoch", type=int, metavar="E", help="epochs trained (default: the last)")
    parser.add_argument("--layer", choices=OUTPUTS, default="h", help="h: embedding (default), z: projection")
    images = "a dataset by name, or a folder of images (default: the run's images)"
    parser.add_argument("--images", metavar="FOLDER|DATASET", help=images)
    add_dataset_root(parser)
    splits = "default: both; a folder of images has splits if it holds train/ and test/ or val/"
    parser.add_argument("--split", nargs="+", choices=SPLITS, help=splits)
    method = "write two-dimensional maps instead"
    parser.add_argument("--project", choices=METHODS, help=method)
    parser.add_argument(
        "--arms", nargs="+", metavar="ARM", help="with --project: one column of panels per arm (default: all)"
    )
    epochs = "with --project: one row of panels per epoch, as 0,10,20 or first:last[:step] (default: the last)"
    parser.add_argument("--epochs", metavar="LIST", help=epochs)
    parser.add_argument("--output", type=Path, metavar="FILE|DIR", help="see below; an existing file is replaced")
    _add_images(parser, f"all; {MAP_IMAGES} with --project")
    return parser


def export() -> Parser:
    """`coupled export`."""
    about = "The encoder of one arm as files that other programs load, with mean, std and image size."
    examples = [
        "--arm nscl --format timm exported/nscl",
        "--run-dir runs/demo --arm cl --epoch 10 --format onnx exported/cl",
    ]
    files = [
        "DIR/model.safetensors   for timm, torchvision and huggingface; DIR/model.onnx for onnx",
        "DIR/load.py             for timm and torchvision: builds the model and loads the weights",
        "DIR/config.json         for huggingface: timm.create_model('local-dir:DIR', pretrained=True)",
        "DIR/metadata.json       run, arm, epoch, mean, std, image size",
        "DIR/README.md           the same, and how to load the encoder",
    ]
    parser = command_parser("export", about, examples, files)
    _add_run(parser)
    parser.add_argument("--arm", metavar="ARM", help="the arm (default: the run's only arm)")
    parser.add_argument("--epoch", type=int, metavar="E", help="epochs trained (default: the last)")
    parser.add_argument("--format", choices=FORMATS, required=True, help="library that loads the files")
    parser.add_argument("folder", type=Path, metavar="DIR", help="new or empty folder to write to")
    _add_code(parser)
    return parser
