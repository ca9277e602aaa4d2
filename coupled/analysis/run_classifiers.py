"""The measures of a run's classifiers, as DataFrames. These functions are methods of `Run`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from coupled.analysis.run import Run


def calibration(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the reliability curve of each arm's classifier, if it has one, and of a linear probe.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.calibration.compute`: arms, epochs, split, layers, bins,
            num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of reliability.csv, one bin of confidence per row: epoch, split, arm, module, variant, bin, count,
        confidence, accuracy and more.

    Raises:
        ValueError: for an unknown arm, epoch, split or layer, fewer than one bin, a damaged snapshot, or images that
            are not those of the run.

    Example:
        >>> found = run.calibration(arms="cl", split="test", epochs=0, num_images=64, bins=5)
        >>> found["bin"].tolist(), int(found["count"].sum())
        ([1, 2, 3, 4, 5], 64)
    """
    from coupled.analysis.calibration import compute

    return compute(run, **options)


def robustness(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the error of each arm on corrupted test images, or mean corruption errors.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.robustness.compute`: arms, epochs, reference, corruptions,
            severities, classifier, corrupted_images, table, num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of robustness.csv or robustness_mce.csv: epoch, source, arm, variant, corruption, severity, value and
        more.

    Raises:
        ValueError: for an unknown arm, epoch, corruption or severity, a damaged snapshot, images that are not those of
            the run, or a folder whose images are not the test images of the run.

    Example:
        >>> found = run.robustness(arms="cl", corruptions="contrast", severities=[5], epochs=1, num_images=64)
        >>> found[["corruption", "severity"]].values.tolist()
        [['none', 0], ['contrast', 5]]
    """
    from coupled.analysis.robustness import compute

    return compute(run, **options)
