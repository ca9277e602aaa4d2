"""How far augmented views of one image lie apart, against how far all views do: 0 is full invariance."""

from torch import Tensor

from coupled.metrics.arm import Measured
from coupled.metrics.undefined import Undefined

SEES = "views"
DETAILS = ("relative",)
RANGE = (0.0, 2.0)


def values(views_VND: Tensor) -> dict[str, Measured]:
    """Variance between the views of an image (n - 1, mean over images) over the variance of all views.

    About 1 if the views of an image are no more alike than those of different images. Undefined for constant features.
    """
    views_VND = views_VND.double() - views_VND[0, 0]
    total = (views_VND - views_VND.mean(dim=(0, 1))).square().sum(2).mean()
    if total == 0:
        return {"relative": Measured(Undefined("constant features"))}
    within = views_VND.var(dim=0, correction=1).sum(1).mean()
    return {"relative": Measured(float(within / total))}
