"""The command lines of the programs that train or fit classifiers with images of their own: linear-evaluation, pretext.

`--help` imports this module, so it imports no large library.
"""

from coupled.analysis.parsers import OUTPUTS, _add_arms, _add_images, _add_outputs, _add_split, _add_table
from coupled.config.command_line import Parser, command_parser, positive, positive_number

SCORED, LAYERS = ("test",), ("h",)
RATES = (1.0, 5.0)  # SupContrast's for SimCLR and for SupCon
TRAIN_EPOCHS, BATCH_SIZE = 100, 512
PRETEXT_TASKS = ("rotation", "colour", "channels", "corruption")  # as in pretext_tasks, which needs torch


def linear_evaluation() -> Parser:
    """`coupled linear-evaluation`."""
    about = (
        "Linear classifiers on the frozen representations, trained by an optimizer on augmented views: stage 2 of\n"
        "SupCon. The defaults are SGD of SupContrast's main_linear.py and the run's augmentation with one view."
    )
    files = ["linear_evaluation.csv   one value per row: top1, top5, nll and ece of each classifier"]
    examples = [
        "--arms scl --lr 5 --augmentation crop_scale=[0.2,1] jitter_prob=0 grayscale_prob=0",
        "--epochs 100 --lr 0.1 --train-epochs 90 --optimizer name=rmsprop schedule=cosine",
    ]
    parser = command_parser("linear-evaluation", about, examples, files)
    _add_arms(parser)
    _add_table(parser, "the last that every arm has")
    _add_split(parser, SCORED, "clean images that are scored (default: test)")
    outputs = "h: embedding, z: projection (default: h)"
    parser.add_argument("--layers", nargs="+", choices=OUTPUTS, default=list(LAYERS), help=outputs)
    rates = "learning rates; one classifier is trained for each (default: 1 5)"
    parser.add_argument("--lr", nargs="+", type=positive_number, metavar="X", default=list(RATES), help=rates)
    lasts = f"epochs of the classifiers (default: {TRAIN_EPOCHS})"
    parser.add_argument("--train-epochs", type=positive, metavar="N", default=TRAIN_EPOCHS, help=lasts)
    images = f"images per step of the classifiers (default: {BATCH_SIZE})"
    parser.add_argument("--batch-size", type=positive, metavar="N", default=BATCH_SIZE, help=images)
    optimizer = (
        "changed keys of the settings' section `optimizer`, for the classifiers (default: name=sgd momentum=0.9"
        " weight_decay=0 lr_scaling=none exclude_1d=false warmup_epochs=0 schedule=step gamma=0.2, with milestones at"
        " 60, 75 and 90 %% of the epochs)"
    )
    parser.add_argument("--optimizer", nargs="+", metavar="KEY=VALUE", help=optimizer)
    views = "changed keys of the run's section `augmentation`, for the views of the classifiers (default: no change)"
    parser.add_argument("--augmentation", nargs="+", metavar="KEY=VALUE", help=views)
    _add_images(parser)
    return parser


def pretext() -> Parser:
    """`coupled pretext`."""
    about = (
        "What h and z know of a transformation of the image: accuracy of logistic regression that predicts which of\n"
        "several rotations, colours or corruptions each image had. Labels of the dataset are not used."
    )
    files = ["pretext.csv   one accuracy per row, with that of guessing"]
    examples = ["--epochs 0,100", "--tasks rotation colour --arms cl nscl --num-images 5000"]
    parser = command_parser("pretext", about, examples, files)
    _add_arms(parser)
    _add_table(parser)
    _add_outputs(parser)
    tasks = "transformation that is predicted (default: all)"
    parser.add_argument("--tasks", nargs="+", choices=PRETEXT_TASKS, default=list(PRETEXT_TASKS), help=tasks)
    _add_images(parser)
    return parser
