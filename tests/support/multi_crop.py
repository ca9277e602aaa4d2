"""An objective of the tests that takes local views: DCL of the views, and every local view drawn to them."""

from coupled.objectives import Inputs, Loss, Needs, dcl


def needs(**_options: object) -> Needs:
    """Projections of views and local views, of the global batch only those of the views."""
    return Needs(outputs=("projection", "local_projection"), gathered=("projection",))


def multi_crop(inputs: Inputs, *, weight: float = 1.0) -> Loss:
    """dcl + weight * (1 - z_l . z_v), mean over local views l and views v of an image, mean over images."""
    loss = dcl.dcl(inputs, temperature=0.5)
    cosines_B = inputs.outputs["local_projection"].mean(0).mul(inputs.outputs["projection"].mean(0)).sum(-1)
    return loss._replace(mean=loss.mean + weight * (1 - cosines_B).mean())
