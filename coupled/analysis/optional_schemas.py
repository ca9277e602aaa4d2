"""Tables of programs that the report does not start, of options, and of loss_schemas.py."""

from coupled.analysis import loss_schemas
from coupled.analysis.cells import NAME, POSITIVE, Column

COLUMNS = {
    "chance": Column("accuracy of guessing: 1 / number of transformations"),
    "optimizer": Column("optimizer of the classifier", NAME),
    "protocol": Column(
        "further settings of the classifier's training, and what differs from the run's augmentation", NAME
    ),
    **loss_schemas.COLUMNS,
}

_PAIR = "epoch split reference arm module"
_DIGESTS = "reference_digest arm_digest images_digest"
_SCORE = "value ci_low ci_high resamples"
_CLASS = {"label": Column("name of the class whose images are measured", NAME)}
_CLASSIFIER = "num_images num_train_images arm_digest images_digest train_images_digest"
TABLES: dict[str, tuple[str, str, str, dict[str, Column]]] = {  # name -> program, columns, columns outside the key
    **dict.fromkeys(
        ("train_class_alignment.csv", "test_class_alignment.csv"),
        (
            "alignment",
            f"{_PAIR} metric label value ci_low ci_high num_images resamples {_DIGESTS}",
            _SCORE,
            _CLASS,
        ),
    ),
    "linear_evaluation.csv": (
        "linear_evaluation",
        f"epoch split arm module optimizer lr protocol metric value {_CLASSIFIER}",
        "value",
        {"lr": Column("learning rate of the classifier before schedule and scaling", POSITIVE)},
    ),
    "pretext.csv": (
        "pretext",
        f"epoch arm module task chance value {_CLASSIFIER}",
        "chance value",
        {
            "task": Column("rotation, colour, channels or corruption: the transformation that is predicted", NAME),
            "value": Column("accuracy on transformed test images; empty if undefined"),
        },
    ),
    **dict.fromkeys(
        ("train_mutual_knn.csv", "test_mutual_knn.csv"),
        ("alignment", f"{_PAIR} k value ci_low ci_high num_images resamples {_DIGESTS}", _SCORE, {}),
    ),
    **loss_schemas.TABLES,
}
