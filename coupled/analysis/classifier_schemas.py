"""Columns and tables of the programs that measure classifiers; schemas.py adds them to all others."""

from coupled.analysis.cells import COUNT, NAME, ORDINAL, TEXT, Cells, Column

_SHARE = Cells("a number from 0 to 1", 0, 1)
COLUMNS = {
    "bin": Column("index of the bin of confidence, 1 for the lowest", ORDINAL),
    "bins": Column("number of bins of equal width", ORDINAL),
    "count": Column("number of images in the bin; empty if the curve is undefined", COUNT, "images"),
    "confidence": Column("mean probability of the predicted class of these images; empty without images", _SHARE),
    "accuracy": Column("share of these images that are classified correctly; empty without images", _SHARE),
    "source": Column("generated, or the folder of corrupted images", NAME),
    "corruption": Column("name of the corruption, none for clean images; empty for a mean over corruptions", TEXT),
    "severity": Column("1 (least) to 5; 0 for clean images", COUNT),
    "corruptions": Column("number of corruptions that have all severities in both arms", COUNT),
    "reference_variant": Column("classifier or linear_probe, of the reference arm", NAME),
}
_TWO_SPLITS = "num_images num_train_images arm_digest images_digest train_images_digest"
_OF_CLASSIFIER = {
    "module": Column("h (embedding), z (projection) or logits", NAME),
    "variant": Column("classifier (the arm's own) or linear_probe", NAME),
}
TABLES: dict[str, tuple[str, str, str, dict[str, Column]]] = {  # name -> program, columns, columns outside the key
    "reliability.csv": (
        "calibration",
        f"epoch split arm module variant bins bin count confidence accuracy {_TWO_SPLITS}",
        "count confidence accuracy",
        _OF_CLASSIFIER,
    ),
    "robustness.csv": (
        "robustness",
        f"epoch split source arm module variant corruption severity value {_TWO_SPLITS}",
        "value",
        {**_OF_CLASSIFIER, "value": Column("share of the images that are classified wrongly", _SHARE)},
    ),
    "robustness_mce.csv": (
        "robustness",
        "epoch split source reference arm reference_variant variant metric corruption corruptions value num_images",
        "corruptions value",
        {
            "variant": _OF_CLASSIFIER["variant"],
            "metric": Column(
                "error, ce (corruption error), relative_ce; mce and relative_mce are means over corruptions", NAME
            ),
        },
    ),
}
