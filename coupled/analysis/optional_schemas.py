"""Tables that a program writes only with an option, and the tables of loss_schemas.py."""

from coupled.analysis import loss_schemas
from coupled.analysis.cells import NAME, Column

_PAIR = "epoch split reference arm module"
_DIGESTS = "reference_digest arm_digest images_digest"
_CLASS = {"label": Column("name of the class whose images are measured", NAME)}
TABLES: dict[str, tuple[str, str, str, dict[str, Column]]] = {  # name -> program, columns, columns outside the key
    **dict.fromkeys(
        ("train_class_alignment.csv", "test_class_alignment.csv"),
        (
            "alignment",
            f"{_PAIR} metric label value ci_low ci_high num_images resamples {_DIGESTS}",
            "value ci_low ci_high",
            _CLASS,
        ),
    ),
    **dict.fromkeys(
        ("train_mutual_knn.csv", "test_mutual_knn.csv"),
        ("alignment", f"{_PAIR} k value ci_low ci_high num_images resamples {_DIGESTS}", "value ci_low ci_high", {}),
    ),
    **loss_schemas.TABLES,
}
