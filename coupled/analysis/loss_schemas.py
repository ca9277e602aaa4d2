"""Columns and tables of `coupled barrier` and `coupled gradients`; schemas.py adds them to all others."""

from coupled.analysis.cells import COUNT, NAME, ORDINAL, POSITIVE, Cells, Column

COSINE = Cells("a number from -1 to 1", -1, 1, empty=False)
COLUMNS = {
    "align": Column("order of the arm's channels: none (as trained), or permutation (matched to the reference)", NAME),
    "excess": Column("value - ((1 - a) value at 0 + a value at 1)", unit="of the metric"),
    "gradient": Column("pair (contribution of one pair of views) or anchor (whole gradient)", NAME),
    "relation": Column("same_image, same_class (other images of the class) or different_class", NAME),
    "cosine_low": Column("lower end of the bin of cosine similarities", COSINE),
    "cosine_high": Column("upper end of the bin of cosine similarities", COSINE),
    "gradients": Column("number of pairs or anchors in the bin", COUNT),
}
_OF_LINE = "metric variant shots k temperature"
_COUNTS = "num_images num_train_images num_batch_norm_images batch_size"
_DIGESTS = "reference_digest arm_digest images_digest train_images_digest"
_OF_LOSSES = {
    "metric": Column("name of a loss (module z) or of a classifier, whose accuracy it is (module h)", NAME),
    "temperature": Column("temperature of the loss; empty for a classifier", POSITIVE._replace(empty=True)),
}
TABLES: dict[str, tuple[str, str, str, dict[str, Column]]] = {  # name -> program, columns, columns outside the key
    "barrier.csv": (
        "barrier",
        f"epoch split reference arm align position module {_OF_LINE} value excess {_COUNTS} {_DIGESTS}",
        "value excess",
        _OF_LOSSES,
    ),
    "barrier_height.csv": (
        "barrier",
        f"epoch split reference arm align module {_OF_LINE} value position points {_COUNTS}",
        "value position points",
        {
            **_OF_LOSSES,
            "value": Column("largest excess of a loss, or largest loss of accuracy", unit="of the metric"),
            "position": Column("position of the largest excess", Cells("a number from 0 to 1", 0, 1)),
            "points": Column("number of measured positions", ORDINAL),
        },
    ),
    "gradients.csv": (
        "gradients",
        "epoch split arm loss temperature gradient relation cosine_low cosine_high gradients value std num_images"
        " batch_size arm_digest images_digest",
        "gradients value std",
        {
            "value": Column("mean size of the gradient; empty for an empty bin", unit="nats"),
        },
    ),
}
