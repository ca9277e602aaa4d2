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


def linear_evaluation(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the accuracy of linear classifiers that are trained on augmented views of each arm's frozen network.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.linear_evaluation.compute`: arms, epochs, split, layers, lr,
            train_epochs, batch_size, optimizer, augmentation, num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of linear_evaluation.csv, one value per row: epoch, split, arm, module, optimizer, lr, metric, value
        and more.

    Raises:
        ValueError: for an unknown arm, epoch, split, layer or key, a batch that is larger than the number of images, a
            damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = run.linear_evaluation(
        ...     arms="cl", epochs=1, layers="h", split="test", lr=0.1, train_epochs=1, batch_size=64, num_images=64
        ... )
        >>> found[["arm", "module", "metric"]].values.tolist()[:2]
        [['cl', 'h', 'top1'], ['cl', 'h', 'top5']]
    """
    from coupled.analysis.linear_evaluation import compute

    return compute(run, **options)


def pretext(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return how well a linear classifier on each arm's h and z predicts which transformation an image had.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.pretext.compute`: arms, epochs, layers, tasks, num_images,
            device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of pretext.csv, one accuracy per row: epoch, arm, module, task, chance, value and more.

    Raises:
        ValueError: for an unknown arm, epoch, layer or task, a damaged snapshot, or images that are not those of the
            run.

    Example:
        >>> found = run.pretext(arms="cl", epochs=0, layers="h", tasks="rotation", num_images=60)
        >>> found[["arm", "module", "task", "chance"]].values.tolist()
        [['cl', 'h', 'rotation', 0.25]]
    """
    from coupled.analysis.pretext import compute

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
