"""The analyses of a run, as DataFrames. These functions are methods of `Run`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from coupled.analysis.run import Run


def weight_gap(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return distances between the arms' weights.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.weight_gap.compute`: compare, reference, against, epochs,
            align, unit_filters, skip_corrupt.

    Returns:
        The rows of weight_gap.csv, one per tensor, epoch and pair of arms, then aggregates over stages and the
        encoder: gap (distance over the mean of both norms, 0 to 2), distance, cosine, angle (degrees) and more.

    Raises:
        ValueError: for an unknown arm, epoch or alignment, or a damaged snapshot.

    Example:
        >>> gaps = run.weight_gap(compare=["nscl"])
        >>> whole = gaps[(gaps["aggregate"] == "global") & gaps["module"].isna()]
        >>> [(row.epoch, row.gap > 0) for row in whole.itertuples()]
        [(0, False), (1, True)]
    """
    from coupled.analysis.weight_gap import compute

    return compute(run, **options)


def alignment(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the similarity of the arms' representations.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.alignment.compute`: compare, reference, against, epochs,
            split, layers, metrics, cross_layer, per_class, mutual_knn, confidence, num_images, device, skip_corrupt,
            accept_changed_images, cache.

    Returns:
        The rows of train_alignment.csv and test_alignment.csv, one value per row: epoch, split, reference, arm,
        module, metric, value and more.

    Raises:
        ValueError: for an unknown arm, epoch, split, layer or metric, a damaged snapshot, or images that are not those
            of the run.

    Example:
        >>> scores = run.alignment(split="test", layers=["h"], metrics=["cka"], epochs=0)
        test: 357 of 357 images, on cpu
        >>> scores[["epoch", "arm", "module", "value"]].values.tolist()
        [[0, 'nscl', 'h', 1.0]]
    """
    from coupled.analysis.alignment import compute

    return compute(run, **options)


def quality(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the quality of each arm's representation: classifiers, scatter within classes, effective rank.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.quality.compute`: arms, epochs, split, layers, metrics,
            shots, num_images, device, skip_corrupt, accept_changed_images, cache, dataset, dataset_root.

    Returns:
        The rows of quality.csv, or of transfer.csv for another dataset, one value per row: epoch, split, arm, module,
        metric, variant, value and more.

    Raises:
        ValueError: for an unknown arm, epoch, split, layer or metric, a damaged snapshot, or images that are not those
            of the run.

    Example:
        >>> found = run.quality(split="test", layers="h", metrics=["nccc"], epochs=0)
        >>> found[["arm", "metric", "variant"]].values.tolist()
        [['cl', 'nccc', 'euclidean'], ['nscl', 'nccc', 'euclidean']]
    """
    from coupled.analysis.quality import compute

    return compute(run, **options)


def collapse(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return spread, effective rank, alignment, uniformity and spectra of each arm's representation.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.collapse.compute`: arms, epochs, split, num_images, device,
            skip_corrupt, accept_changed_images.

    Returns:
        The rows of collapse.csv, one value per row: epoch, split, arm, module, metric, component, value and more.

    Raises:
        ValueError: for an unknown arm, epoch or split, a damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = run.collapse(arms="cl", split="test", epochs=0, num_images=64)
        >>> sorted(set(found["module"]))
        ['h', 'z']
    """
    from coupled.analysis.collapse import compute

    return compute(run, **options)


def losses(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return every contrastive loss, evaluated for every arm.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.losses.compute`: arms, epochs, split, temperatures, table,
            num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of losses.csv or loss_gap.csv, in nats, one value per row: epoch, split, arm, loss, temperature,
        value and more.

    Raises:
        ValueError: for an unknown arm, epoch or split, a temperature of 0 or less, a damaged snapshot, images that are
            not those of the run, or an anchor for which 0 <= DCL - NSCL <= bound does not hold.

    Example:
        >>> found = run.losses(split="test", epochs=0, temperatures=[0.5])
        >>> sorted(set(found["loss"]))
        ['dcl', 'nscl', 'nt_xent', 'supcon']
    """
    from coupled.analysis.losses import compute

    return compute(run, **options)


def bounds(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the papers' bounds with the measured values.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.bounds.compute`: compare, reference, epochs, split, layers,
            num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of bounds.csv, one bound per row: epoch, split, arm, bound, value, measured and more; NaN where
        a column does not apply.

    Raises:
        ValueError: for an unknown arm, epoch, split or layer, a damaged snapshot or table, images that are not those
            of the run, or a score below an a-posteriori bound, which contradicts the theorem.

    Example:
        >>> found = run.bounds(split="test", layers="h", epochs=[0])  # doctest: +ELLIPSIS
        runs/tiny/analysis/quality.csv: no bounds from this table; ...
        runs/tiny/analysis/weight_gap.csv: no bounds from this table; ...
        >>> sorted(set(found["bound"]))
        ['a_posteriori', 'a_posteriori_sharp']
    """
    from coupled.analysis.bounds import compute

    return compute(run, **options)


def merge(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the accuracy of the weights between two arms, at several points of the straight line.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.merge.compute`: compare, reference, epochs, points,
            batch_norm_images, layers, metrics, num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of merge.csv, one value per row: epoch, reference, arm, position, module, metric, variant, value and
        more.

    Raises:
        ValueError: for an unknown arm, epoch, layer or metric, a position outside [0, 1], a damaged snapshot, or images
            that are not those of the run.

    Example:
        >>> found = run.merge(epochs=0, points=[0, 0.5], layers="h", metrics="nccc", batch_norm_images=0)
        >>> found[["arm", "position", "metric"]].values.tolist()
        [['nscl', 0.0, 'nccc'], ['nscl', 0.5, 'nccc']]
    """
    from coupled.analysis.merge import compute

    return compute(run, **options)


def verify(run: "Run") -> list[str]:
    """Check every file of the run and that its images can be read.

    Args:
        run: the run.

    Returns:
        The findings, one line each; empty if nothing is wrong.

    Raises:
        ValueError: if the settings of the run name user-defined code that has not been imported.

    Example:
        >>> run.verify()
        []
    """
    from coupled.analysis.verify import compute

    return compute(run)
