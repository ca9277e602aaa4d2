"""The analyses of losses along and around the weights of a run, as DataFrames. These functions are methods of `Run`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from coupled.analysis.run import Run


def barrier(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return losses and accuracy of the weights between two arms, and their excess over the line between the ends.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.barrier.compute`: compare, reference, epochs, split, points,
            align, batch_norm_images, metrics, num_images, device, skip_corrupt, accept_changed_images.

    Returns:
        The rows of barrier.csv, one value per row: epoch, split, reference, arm, align, position, metric, value, excess
        and more.

    Raises:
        ValueError: for an unknown arm, epoch, split or metric, a position outside [0, 1], an arm whose channels cannot
            be reordered, a damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = run.barrier(epochs=0, split="test", points=[0.5], metrics="nccc", num_images=64)
        >>> found[found["metric"] == "nscl"][["arm", "position", "excess"]].values.tolist()
        [['nscl', 0.0, 0.0], ['nscl', 0.5, 0.0], ['nscl', 1.0, 0.0]]
    """
    from coupled.analysis.barrier import compute

    return compute(run, **options)


def gradients(run: "Run", **options: Any) -> "pd.DataFrame":
    """Return the size of the gradient with respect to the projections, by cosine similarity of the pairs.

    Args:
        run: the run.
        options: keyword arguments of `coupled.analysis.gradients.compute`: arms, epochs, split, num_images, device,
            skip_corrupt, accept_changed_images.

    Returns:
        The rows of gradients.csv, in nats, one bin of the cosine similarity per row: epoch, split, arm, loss, gradient,
        relation, gradients (their number), value (mean size) and more.

    Raises:
        ValueError: for an unknown arm, epoch or split, a damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = run.gradients(arms="cl", split="test", epochs=0, num_images=64)
        >>> sorted(set(found["relation"]))
        ['different_class', 'same_class', 'same_image']
    """
    from coupled.analysis.gradients import compute

    return compute(run, **options)
