"""Every CSV file that a run and its analyses write: columns in order, allowed values, units, key.

A column means the same in all tables unless a table overrides it. Rows with the same key are the same row. Of rows that
differ only in digests, the last one is the newest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from coupled.analysis import classifier_schemas, optional_schemas, theory_schemas
from coupled.analysis.cells import COUNT, EPOCH, NAME, ORDINAL, POSITIVE, SIZE, TEXT, Cells, Column

OF_OBJECTIVE = "of the objective"  # nats for those with cross-entropies
COLUMNS = {
    "epoch": Column("epochs trained; 0 is the start", EPOCH, "epochs"),
    "last_epoch": Column("the last epoch that was checked", EPOCH, "epochs"),
    "step": Column("steps trained", COUNT, "steps"),
    "inputs_digest": Column("digest of the image indices and the view plan of the step, hexadecimal", TEXT),
    "dataset": Column("name of a dataset, or its folder", NAME),
    "split": Column("train or test", NAME),
    "reference": Column("the reference arm", NAME),
    "arm": Column("the arm", NAME),
    "direct_arm": Column("the arm that minimises NSCL directly", NAME),
    "tensor": Column("full name of the tensor in the snapshot; empty in a row that aggregates several tensors", TEXT),
    "module": Column("module of the encoder, as in named_modules(); stem, h (embedding), z (projection), logits", NAME),
    "reference_module": Column("module of the reference arm, named like module", NAME),
    "aggregate": Column("mean, sum, or global (one vector) over the tensors of a module; empty for one tensor", TEXT),
    "kind": Column("kind of the tensor: conv, linear, norm_scale, norm_shift, running or other", TEXT),
    "parameters": Column("number of entries of the tensors"),
    "gap": Column("distance divided by the mean of both norms", SIZE),
    "distance": Column("||reference - arm||, Frobenius", SIZE),
    "reference_norm": Column("||reference||, Frobenius"),
    "arm_norm": Column("||arm||, Frobenius"),
    "cosine": Column("cosine similarity of the two tensors"),
    "angle": Column("angle between the two tensors", unit="degrees"),
    "reference_drift": Column("distance of the reference from its epoch 0"),
    "arm_drift": Column("distance of the arm from its epoch 0"),
    "update_cosine": Column("cosine similarity of the two arms' updates since the previous snapshot"),
    "moved": Column("number of the arm's channels that were reordered"),
    "model": Column("fitted curve: early, exponential or saturation", NAME),
    "points": Column("number of epochs in the fit", COUNT, "epochs"),
    "slope": Column("fitted gap per epoch at the start", unit="per epoch"),
    "slope_error": Column("standard error of slope", unit="per epoch"),
    "rate": Column("fitted rate of growth or saturation", unit="per epoch"),
    "rate_error": Column("standard error of rate", unit="per epoch"),
    "level": Column("gap at which the fit saturates"),
    "level_error": Column("standard error of level"),
    "doubling_time": Column("doubling time of the fitted gap", unit="epochs"),
    "doubling_time_error": Column("standard error of doubling_time", unit="epochs"),
    "rmse": Column("root mean square error of the fit"),
    "aic": Column("Akaike information criterion; lower is better"),
    "better": Column("yes for the curve with the lower aic", TEXT),
    "metric": Column("name of the metric", NAME),
    "variant": Column("convention, protocol or classifier, if a metric has several values", TEXT),
    "position": Column("a in (1 - a) reference + a arm", Cells("a number from 0 to 1", 0, 1, empty=False)),
    "shots": Column("labelled train images per class; empty for a metric without shots", ORDINAL, "images"),
    "k": Column("number of neighbours", ORDINAL, "images"),
    "component": Column("index of the eigenvalue or direction, 1 for the largest", ORDINAL),
    "value": Column("value of the metric; empty if undefined", unit="of the metric"),
    "std": Column("standard deviation of the value over seeded repeats", SIZE),
    "ci_low": Column("lower end of the 95 % interval over images"),
    "ci_high": Column("upper end of the 95 % interval over images"),
    "collapsed": Column("whether the module has collapsed: point, line or no", TEXT),
    "num_images": Column("number of images measured", COUNT._replace(empty=False), "images"),
    "num_train_images": Column("number of train images that the classifier was fitted on", COUNT, "images"),
    "num_batch_norm_images": Column("train images that renewed the batch norms; 0 for none", COUNT, "images"),
    "resamples": Column("number of resamples of the jackknife's blocks for the interval; empty without one", COUNT),
    "batch_size": Column("images per batch", COUNT, "images"),
    "loss": Column("name of the objective", NAME),
    "temperature": Column("temperature of the loss", POSITIVE),
    "skipped_anchors": Column("anchors without a positive or without a negative; not in the mean", unit="anchors"),
    "bound": Column("name of the bound", NAME),
    "set_bound": Column("bound for the whole set", unit="nats"),
    "tightness": Column("gap / bound"),
    "set_tightness": Column("gap / set_bound"),
    "tightest": Column("the highest gap / bound of a batch"),
    "epochs": Column("number of epochs in the correlation", COUNT, "epochs"),
    "correlation": Column("Pearson correlation of the DCL and the NSCL loss"),
    "nscl": Column("NSCL loss of the arm", unit="nats"),
    "nscl_direct": Column("NSCL loss of the direct arm", unit="nats"),
    "excess": Column("nscl - nscl_direct", unit="nats"),
    "share": Column("the arm's descent of the NSCL loss divided by that of the direct arm"),
    "of": Column("the bounded quantity", NAME),
    "task": Column("all (classes) or two_way (mean over pairs of classes)", TEXT),
    "fit_epochs": Column("number of epochs in the fit of the shape", COUNT),
    "fit_last_epoch": Column("the last epoch in the fit of the shape", COUNT),
    "beta": Column("fitted rate of growth", unit="per unit of the sum of learning rates"),
    "measured": Column("measured value of the bounded quantity", unit="of the bounded quantity"),
    "log10_rho": Column("log10 of the relative distance of the similarity matrices"),
    "vacuous": Column("yes if the bound is vacuous", TEXT),
    "holds": Column("no if the measured value violates the bound", TEXT),
    "lr": Column("learning rate", SIZE._replace(empty=False)),
    "seconds": Column("time of the arm's part of the epoch's steps", SIZE, "seconds"),
    "images_per_second": Column("throughput of the arm's part of the step", SIZE, "images per second"),
    "layer": Column("h (embedding) or z (projection)", NAME),
    "method": Column("umap, tsne or pca", NAME),
    "image": Column("index of the image in its split or folder", COUNT._replace(empty=False)),
    "file": Column("path of the image below the root of its dataset; empty if the image has no file", TEXT),
    "label": Column("name of the image's class; empty if unknown", TEXT),
    "x": Column("x coordinate in the map; without a unit"),
    "y": Column("y coordinate in the map; without a unit"),
    "finding": Column("what is wrong with the run; empty if nothing is wrong", TEXT),
    "reference_digest": Column("digest of the reference's snapshot, 16 hexadecimal digits", TEXT),
    "arm_digest": Column("digest of the arm's snapshot, 16 hexadecimal digits", TEXT),
    "images_digest": Column("digest of the images of the split, 16 hexadecimal digits", TEXT),
    "train_images_digest": Column("digest of the train images, 16 hexadecimal digits", TEXT),
    **(classifier_schemas.COLUMNS | optional_schemas.COLUMNS | theory_schemas.COLUMNS),
}
INTERVAL = ("ci_low", "ci_high", "resamples")  # of a score; its other columns are those of a row without an interval
OF_STEPS = {  # columns of steps.csv after `lr`, for every arm as <arm>_<name>
    "lr": Column("learning rate of the arm; only of arms with their own `optimizer`, before all other columns of arms"),
    "loss": Column("loss of the global batch", unit=OF_OBJECTIVE),
    "grad_norm": Column("norm of all gradients before clipping"),
    "skipped_anchors": COLUMNS["skipped_anchors"],
    "probe_accuracy": Column("share of correct views of the global batch, before the update; only with `online_probe`"),
}


@dataclass(frozen=True)
class Schema:
    """A table: the program that writes it, its columns in order, the columns outside the key, overridden columns."""

    program: str
    columns: tuple[str, ...]
    values: frozenset[str]
    others: Mapping[str, Column] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that identify a row, including digests."""
        return tuple(column for column in self.columns if column not in self.values)

    @property
    def digests(self) -> tuple[str, ...]:
        """The columns of the key with digests of the row's sources."""
        return tuple(column for column in self.key if column.endswith("_digest"))

    @property
    def place(self) -> tuple[str, ...]:
        """The columns of the key without digests: of rows that agree in these, the last one is the newest."""
        return tuple(column for column in self.key if column not in self.digests)


def _schema(program: str, columns: str, values: str = "", **others: Column) -> Schema:
    return Schema(program, tuple(columns.split()), frozenset(values.split()), others)


_GAPS = "parameters gap distance reference_norm arm_norm cosine angle reference_drift arm_drift update_cosine"
_OF_GAP = {"module": Column("module of the encoder, or projector...; empty for the encoder itself", TEXT)}
_FIT = "slope slope_error rate rate_error level level_error doubling_time doubling_time_error rmse aic better"
_GAP_KEY, _PAIR = "epoch reference arm tensor module aggregate", "reference_digest arm_digest"
_WEIGHT_GAP = _schema("weight_gap", f"{_GAP_KEY} kind {_GAPS} {_PAIR}", f"kind {_GAPS}", **_OF_GAP)
_SCORE = "value ci_low ci_high num_images resamples reference_digest arm_digest images_digest"
_ALIGNMENT, _CROSS = (
    _schema("alignment", f"epoch split reference arm {modules} metric {_SCORE}", "value ci_low ci_high resamples")
    for modules in ("module", "reference_module module")
)
_RATES, _IMAGES = "loss lr seconds images_per_second", "num_images num_train_images"
_OF_MONITOR = {
    "split": Column("test; empty for weights", TEXT),
    "reference": Column("the reference arm; empty for a metric of one arm", TEXT),
}
_LOSS_GAP, _REACHED = "gap bound set_bound tightness set_tightness tightest", "nscl nscl_direct excess share"
_QUALITY, _TWO_SPLITS = f"arm module metric variant shots k value std {_IMAGES}", "images_digest train_images_digest"
_FLOOR = "slope beta value measured log10_rho vacuous holds"
SCHEMAS = {
    "steps.csv": _schema("train", "epoch step inputs_digest lr", "inputs_digest lr"),
    "epochs.csv": _schema(
        "train", f"epoch arm {_RATES}", _RATES, loss=Column("mean over the steps", unit=OF_OBJECTIVE)
    ),
    "monitor.csv": _schema("train", f"epoch split reference arm metric value {_IMAGES}", "value", **_OF_MONITOR),
    **dict.fromkeys(("weight_gap.csv", "weight_gap_filters.csv"), _WEIGHT_GAP),
    "weight_gap_permutation.csv": _schema(
        "weight_gap", f"{_GAP_KEY} kind {_GAPS} moved {_PAIR}", f"kind {_GAPS} moved", **_OF_GAP
    ),
    "weight_gap_growth.csv": _schema(
        "weight_gap",
        f"reference arm model points last_epoch {_FIT}",
        f"points last_epoch {_FIT}",
        last_epoch=Column("the last epoch in the fit", EPOCH),
    ),
    **dict.fromkeys(("train_alignment.csv", "test_alignment.csv"), _ALIGNMENT),
    **dict.fromkeys(("train_cross_layer.csv", "test_cross_layer.csv"), _CROSS),
    "quality.csv": _schema("quality", f"epoch split {_QUALITY} arm_digest {_TWO_SPLITS}", "value std"),
    "transfer.csv": _schema("quality", f"epoch dataset split {_QUALITY} arm_digest {_TWO_SPLITS}", "value std"),
    "merge.csv": _schema(
        "merge",
        f"epoch reference arm position module metric variant shots k value {_IMAGES} num_batch_norm_images {_PAIR}"
        f" {_TWO_SPLITS}",
        "value",
    ),
    "collapse.csv": _schema(
        "collapse",
        "epoch split arm module metric variant component value collapsed num_images arm_digest images_digest",
        "value collapsed",
        module=Column("h (embedding), z (projection) or predictor", NAME),
    ),
    "losses.csv": _schema(
        "losses",
        "epoch split arm loss temperature value skipped_anchors num_images batch_size arm_digest images_digest",
        "value skipped_anchors",
        value=Column("mean over the anchors", unit="nats"),
    ),
    "loss_gap.csv": _schema(
        "losses",
        f"epoch split arm temperature {_LOSS_GAP} num_images batch_size arm_digest images_digest",
        _LOSS_GAP,
        gap=Column("mean of DCL - NSCL", unit="nats"),
        bound=Column("bound of gap for the classes of the batches", unit="nats"),
    ),
    "loss_correlation.csv": _schema(
        "losses", "arm split temperature num_images batch_size epochs correlation", "epochs correlation"
    ),
    "nscl_reached.csv": _schema(
        "losses", f"split temperature num_images batch_size epoch arm direct_arm {_REACHED}", _REACHED
    ),
    "bounds.csv": _schema(
        "bounds",
        f"epoch split reference arm module aggregate bound of task shots fit_epochs fit_last_epoch {_FLOOR} num_images"
        " num_train_images reference_digest arm_digest images_digest",
        _FLOOR,
        reference=Column("the reference arm; empty for a bound about one arm", TEXT),
        split=Column("train or test; empty for weights", TEXT),
        module=Column("h (embedding) or z (projection); empty for the whole encoder", TEXT),
        aggregate=Column("global (the encoder's weights as one concatenated vector) for weights; else empty", TEXT),
        slope=Column("fitted distance per unit of the sum of learning rates at the start"),
        value=Column("the bound", unit="of the bounded quantity"),
        num_images=Column("number of images measured; empty for weights", COUNT),
    ),
    "map.csv": _schema(
        "embed",
        "epoch arm layer method dataset split image file label x y num_images arm_digest",
        "file label x y",
        split=Column("train or test; empty for a folder of images", TEXT),
    ),
    "verify.csv": _schema(
        "verify",
        "last_epoch finding",
        last_epoch=Column(
            "the last epoch that has a snapshot; -1 for none",
            EPOCH._replace(words="a whole number of -1 or more", least=-1),
        ),
    ),
    **{
        name: _schema(program, columns, values, **others)
        for more in (classifier_schemas, optional_schemas, theory_schemas)
        for name, (program, columns, values, others) in more.TABLES.items()
    },
}
