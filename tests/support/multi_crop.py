"""A test objective with local views: DCL of the views, plus alignment of every local view with the views."""

from coupled.objectives import Inputs, Loss, Needs, dcl


def needs(**_options: object) -> Needs:
    """Projections of views and local views; only those of the views are gathered from all ranks."""
    return Needs(outputs=("projection", "local_projection"), gathered=("projection",))


def multi_crop(inputs: Inputs, *, weight: float = 1.0) -> Loss:
    """dcl + weight * (1 - z_l . z_v), averaged over local views l, views v and images."""
    loss = dcl.dcl(inputs, temperature=0.5)
    cosines_B = inputs.outputs["local_projection"].mean(0).mul(inputs.outputs["projection"].mean(0)).sum(-1)
    return loss._replace(mean=loss.mean + weight * (1 - cosines_B).mean())
