"""Pair metrics: scores of two arms' representations of the same images, one file per metric, found by its name.

A file `<name>.py` defines
* a function `<name>(x, y)` of arrays, tensors or blocks of rows, for users;
* `RANGE`: the lowest and the highest possible value;
* `DIRECTION`: "higher" if more similar representations have a higher value, else "lower";
* `SYMMETRIC = False` if the value changes when the two representations are swapped; x is the reference arm;
* `INVARIANCES`: the transformations of either representation that do not change the value, keys of `INVARIANCES` below;
* either `TRANSFORM`, a key of `_sums.TRANSFORMS` that is applied to the rows, and `value(xx, yy, xy)`, a pure function
  of the `Moments` of the first arm with itself, of the second with itself, and of the first with the second. Such a
  metric is exact over all images in one pass, without storing them;
* or `SUBSET`, the maximal number of images, and `value(x_nD, y_nE)`, a pure function of the rows of a seeded subset of
  the images, which are stored.

`value` is `Undefined`, with a reason, exactly in the cases that the docstring of `<name>` lists under "Returns".
"""

INVARIANCES = {
    "rotation": "an orthogonal map of the features",
    "permutation": "a permutation of the features",
    "scale": "multiplication of all rows by one positive number",
    "row_scale": "multiplication of each row by a different positive number",
    "shift": "addition of one vector to all rows",
    "row_shift": "addition of a different number to all features of each row",
}
