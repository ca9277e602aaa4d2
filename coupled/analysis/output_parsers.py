"""The command lines of the programs that take representations and networks out of a run.

Imported to print a help, so nothing large is imported here.
"""

from pathlib import Path

from coupled.analysis.parsers import OUTPUTS, SPLITS, _add_code, _add_images, _add_run, add_dataset_root
from coupled.config.command_line import Parser, command_parser

METHODS = ("umap", "tsne", "pca")
FORMATS = ("timm", "torchvision", "onnx", "huggingface")
MAP_IMAGES = 2000


def embed() -> Parser:
    """`coupled embed`."""
    about = (
        "Embeddings of images by one arm: of the run's, of another dataset, or of a folder of pictures.\n"
        "With --project two-dimensional maps of the same images by several arms at several epochs."
    )
    examples = [
        "--arm nscl --images photos --output photos.parquet",
        "--project umap --arms cl nscl --epochs 0,10,100 --split test",
    ]
    files = [
        "--output FILE      .parquet, .csv, or .npy with a .images.csv beside it: a row an image",
        "map.csv            of --project, in --output DIR (default: analysis/ of the run): a point a row",
        "figures/map.png    of --project, there, and map.pdf: a panel an arm, a row of panels an epoch",
    ]
    parser = command_parser("embed", about, examples, files)
    _add_run(parser)
    parser.add_argument("--arm", metavar="ARM", help="the arm that embeds (default: the run's only arm)")
    parser.add_argument("--epoch", type=int, metavar="E", help="epochs trained (default: the last)")
    parser.add_argument("--layer", choices=OUTPUTS, default="h", help="h: embedding (default), z: projection")
    images = "a dataset by name, or a folder of pictures (default: the run's images)"
    parser.add_argument("--images", metavar="FOLDER|DATASET", help=images)
    add_dataset_root(parser)
    splits = "default: both; a folder has splits if it holds train/ and test/ or val/"
    parser.add_argument("--split", nargs="+", choices=SPLITS, help=splits)
    method = f"draw two-dimensional maps instead, without --num-images of at most {MAP_IMAGES} images a split"
    parser.add_argument("--project", choices=METHODS, help=method)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="of --project: a panel each (default: all)")
    epochs = "of --project: a row of panels each, as 0,10,20 or first:last[:step] (default: the last)"
    parser.add_argument("--epochs", metavar="LIST", help=epochs)
    parser.add_argument("--output", type=Path, metavar="FILE|DIR", help="see below; what is there is replaced")
    _add_images(parser)
    return parser


def export() -> Parser:
    """`coupled export`."""
    about = "The encoder of one arm as files that other programs load, with mean, std and image size beside it."
    examples = [
        "--arm nscl --format timm exported/nscl",
        "--run-dir runs/demo --arm cl --epoch 10 --format onnx exported/cl",
    ]
    files = [
        "DIR/model.safetensors   of timm, torchvision and huggingface; DIR/model.onnx of onnx",
        "DIR/load.py             of timm and torchvision: builds the model and loads the weights",
        "DIR/config.json         of huggingface: for timm.create_model('local-dir:DIR', pretrained=True)",
        "DIR/metadata.json       run, arm, epoch, mean, std, image size",
        "DIR/README.md           the same, and how to load it",
    ]
    parser = command_parser("export", about, examples, files)
    _add_run(parser)
    parser.add_argument("--arm", metavar="ARM", help="the arm (default: the run's only arm)")
    parser.add_argument("--epoch", type=int, metavar="E", help="epochs trained (default: the last)")
    parser.add_argument("--format", choices=FORMATS, required=True, help="who is to load it")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that is new or empty")
    _add_code(parser)
    return parser
