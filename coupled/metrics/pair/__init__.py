"""Pair metrics: scores of two arms' representations of the same images; one file each, found by its name.

A file `<name>.py` holds
* a function `<name>(x, y)` of arrays, tensors or blocks of rows, for users;
* `RANGE`: the lowest and the highest value it can have;
* `DIRECTION`: "higher" if representations that are more alike have the higher value, "lower" if the lower one;
* `INVARIANCES`: what may be done to one of the representations without changing the value, keys of `INVARIANCES` below;
* either `TRANSFORM`, the rows it sees, a key of `_sums.TRANSFORMS`, and `value(xx, yy, xy)`, a pure function of the
  `Moments` of the first arm with itself, of the second with itself, and of the first with the second: such a metric is
  exact over all images in one pass and stores none;
* or `SUBSET`, the most images it looks at, and `value(x_nD, y_nE)`, a pure function of those images' rows: the program
  keeps them for a seeded subset of the images.

`value` is `Undefined`, which says why, where and only where its docstring says that there is no value.
"""

INVARIANCES = {
    "rotation": "an orthogonal map of the features",
    "permutation": "another order of the features",
    "scale": "all rows times one positive number",
    "row_scale": "each row times a positive number of its own",
    "shift": "one vector added to all rows",
    "row_shift": "a number of its own added to all features of each row",
}
