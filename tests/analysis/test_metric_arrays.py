"""Metrics as functions of arrays: the values of the programs for numpy, torch and chunked input; bad input is named.

Shape letters: n, N images, M test images, D, E widths, V views.
"""

import doctest
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from math import isnan
from pathlib import Path
from typing import Any

import ckatorch.core
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from support import tiny
from support.pair_definitions import definition, related, streamed
from torch import Tensor

import coupled.metrics
from coupled.analysis import weight_gap
from coupled.analysis.representations import embeddings
from coupled.analysis.weights.open_snapshots import OpenSnapshots
from coupled.config.metric_registry import (
    arm_metric_names,
    find_arm_metrics,
    find_pair_metrics,
    pair_metric_names,
)
from coupled.metrics import state_dicts
from coupled.metrics import weights as weights_module
from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.pair import _arrays
from coupled.metrics.undefined import Undefined
from coupled.storage.snapshots import SnapshotStore

ARM = {metric.name: metric for metric in find_arm_metrics(arm_metric_names())}
OF_A_SPLIT = [name for name, metric in ARM.items() if metric.sees == "split" and name != "effective_rank"]
CLASSIFIERS = [name for name, metric in ARM.items() if metric.sees == "classifier"]


def pair_metric(name: str) -> Callable[..., float]:
    return getattr(import_module(f"{find_pair_metrics([name])[0].value.__module__}"), name)


def arm_metric(name: str) -> Callable[..., Any]:
    return getattr(import_module(ARM[name].values.__module__), name)


def chunks(rows: Any, *sizes: int) -> Iterator[Any]:
    """Blocks of these sizes, in turn, from a generator."""
    first, turn = 0, 0
    while first < len(rows):
        yield rows[first : first + sizes[turn % len(sizes)]]
        first, turn = first + sizes[turn % len(sizes)], turn + 1


def labelled(seed: int, per_class: int = 30) -> tuple[Tensor, Tensor]:
    """Overlapping classes 0, 2, 4 in 6 dimensions, float32 as embeddings are."""
    generator = torch.Generator().manual_seed(seed)
    place_N = torch.arange(3).repeat(per_class)
    rows_ND = 0.7 * torch.eye(3, 6)[place_N] + torch.randn(len(place_N), 6, generator=generator)
    return rows_ND, 2 * place_N


@pytest.mark.parametrize("name", pair_metric_names())
def test_a_pair_metric_on_arrays_tensors_and_chunks_equals_the_program(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, on float32 rows as the network gives them, over several batches, here of 64 rows."""
    assert _arrays.BLOCK == embeddings.BATCH
    monkeypatch.setattr(_arrays, "BLOCK", 64)
    x_nD, y_nE = (rows.float() for rows in related(3, 180, 8, 5, mean=2.0))
    expected, metric = streamed(name, x_nD, y_nE, batch=64), pair_metric(name)
    assert expected == pytest.approx(definition(name, x_nD, y_nE), abs=1e-9)
    x, y = x_nD.numpy(), y_nE.numpy()
    assert metric(x_nD, y_nE) == metric(x, y) == expected
    assert (
        metric(chunks(x, 1, 80, 7), list(y_nE.split(50))) == metric(x_nD.requires_grad_(), chunks(y, 150)) == expected
    )
    assert metric(np.asfortranarray(x), pd.DataFrame(y)) == expected
    x.flags.writeable = False
    assert metric(x[::-1], y[::-1]) == pytest.approx(expected, abs=1e-12)
    assert metric(x.astype(">f4"), y.astype(np.float64)) == pytest.approx(expected, abs=1e-12)
    once = chunks(x, 30)
    assert metric(once, once) == metric(x, x) == metric(x, x.copy()) == (0 if name == "angle" else 1)
    assert type(expected) is type(metric(x, y)) is float


def test_cka_equals_another_library() -> None:
    """ckatorch, biased and debiased, from n x n matrices."""
    x_nD, y_nE = related(4, 120, 24, 10, mean=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        biased = float(ckatorch.core.cka_base(x_nD, y_nE, kernel="linear"))
        debiased = float(ckatorch.core.cka_batch(x_nD[None], y_nE[None]))
    assert pair_metric("cka")(x_nD.numpy(), y_nE.numpy()) == pytest.approx(biased, abs=1e-10)
    assert pair_metric("cka_debiased")(x_nD.numpy(), y_nE.numpy()) == pytest.approx(debiased, abs=1e-9)


def test_integers_lists_and_half_floats_are_accepted() -> None:
    """A list of lists is one array; a list of arrays is a list of chunks."""
    x, y = np.arange(24).reshape(8, 3) ** 2, (np.arange(16).reshape(8, 2) * 7) % 5
    cka = pair_metric("cka")
    expected = cka(x.astype(float), y.astype(float))
    assert cka(x.tolist(), [y[:3], y[3:]]) == cka(torch.tensor(x), y.astype(np.int8)) == expected
    assert cka(x.astype(np.float16), torch.tensor(y, dtype=torch.bfloat16)) == expected
    assert cka(np.array([[0], [1], [2]]), np.array([[True], [False], [True]])) == pytest.approx(0, abs=1e-15)


def test_the_number_of_neighbours_can_be_chosen() -> None:
    """The value equals the definition; from k = n - 1 on, every other row is a neighbour."""
    x_nD, y_nE = related(5, 30, 4, 4)
    near = [torch.nn.functional.cosine_similarity(a[:, None], a[None], dim=2).fill_diagonal_(-2) for a in (x_nD, y_nE)]
    sets = [[set(row.argsort(descending=True)[:3].tolist()) for row in each] for each in near]
    expected = np.mean([len(a & b) / 3 for a, b in zip(*sets, strict=True)])
    assert pair_metric("mutual_knn")(x_nD, y_nE, k=3) == pytest.approx(float(expected), abs=1e-12)


def test_an_undefined_value_is_nan_with_the_reason() -> None:
    """Like an empty cell in the CSV: a loop over layers must not stop at a layer with constant outputs."""
    constant, x = np.ones((20, 3)), np.random.Generator(np.random.Philox(0)).normal(size=(20, 3))
    for name in pair_metric_names():
        found = pair_metric(name)(constant, x)
        assert isinstance(found, Undefined)
        assert isnan(found)
    assert pair_metric("cka_debiased")(x[:3], x[:3]).reason == "fewer than 4 images"
    assert pair_metric("mutual_knn")(x, x, k=19).reason == "fewer than 21 images"
    assert arm_metric("cdnv")(x, np.zeros(20, int)).reason == "fewer than 2 classes"
    assert arm_metric("knn")(x, np.zeros(20, int), x, np.zeros(20, int), k=21).reason == "fewer than 21 train images"
    assert arm_metric("few_shot")(x, np.zeros(20, int), x, np.zeros(20, int))["nccc"].reason


GOOD = np.arange(12.0).reshape(6, 2) ** 2
NAN = np.where(np.arange(12).reshape(6, 2) == 7, np.nan, GOOD)
BAD_PAIRS = [
    (GOOD, GOOD[:4], "x has 6 rows and y has 4; row i of both must belong to the same image"),
    ([GOOD[:4], GOOD[4:]], [GOOD[:2], GOOD[2:5]], "x has 6 rows and y has 5"),
    (GOOD[0], GOOD, "x: expected 2-D rows [n, d], found 1-D (2)"),
    (GOOD, GOOD.reshape(3, 2, 2), "y: expected 2-D rows [n, d], found 3-D (3x2x2)"),
    (GOOD, torch.tensor(NAN), "y: row 3, column 1 is nan; all values must be finite"),
    ([NAN[:2], NAN[2:]], GOOD, "x: row 3, column 1 is nan"),
    (np.where(GOOD == 0, np.inf, GOOD), GOOD, "x: row 0, column 0 is inf"),
    (GOOD[:1], GOOD[:1], "x and y: 1 row; at least 2 are needed"),
    (iter(()), iter(()), "x and y: 0 rows; at least 2 are needed"),
    (GOOD, GOOD[:, :0], "y: the rows have no columns"),
    ([GOOD, GOOD[:, :1]], GOOD, "x: a block has 1 columns, the first block has 2"),
    ([[1, 2], [3]], GOOD, "x: the rows differ in length"),
    (GOOD, np.array([["a", "b"]] * 6), "y: expected real numbers, found <U1"),
    (GOOD + 1j, GOOD, "x: expected real numbers, found complex128"),
    (torch.tensor(GOOD) + 1j, GOOD, "x: expected real numbers, found torch.complex128"),
    (None, GOOD, "x: expected an array, a tensor or blocks of rows, found NoneType"),
    (3.0, GOOD, "x: expected 2-D rows [n, d], found 0-D (a single number)"),
]


@pytest.mark.parametrize("name", ["cka", "mutual_knn"])
@pytest.mark.parametrize(("x", "y", "message"), BAD_PAIRS)
def test_bad_rows_are_named_in_one_line(name: str, x: Any, y: Any, message: str) -> None:
    """One metric of sums and one of rows; all other metrics share their code path."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        pair_metric(name)(x, y)
    assert message in str(caught.value)


def measured(name: str, *seen: Any) -> list[Measured]:
    """The values of the program in their order."""
    return list(ARM[name].values(*seen).values())


@pytest.mark.parametrize("name", OF_A_SPLIT)
def test_a_metric_of_one_split_equals_the_program(name: str) -> None:
    """Bit for bit; labels as an array, a list, a tensor or chunks."""
    rows_ND, labels_N = labelled(0)
    expected, metric = measured(name, Labelled(rows_ND, labels_N))[0].value, arm_metric(name)
    assert metric(rows_ND.numpy(), labels_N.numpy()) == metric(rows_ND, labels_N.tolist()) == expected
    assert metric(chunks(rows_ND.numpy(), 13), chunks(labels_N, 50)) == expected
    assert metric(rows_ND.numpy().astype(np.float64), pd.Series(labels_N.numpy(), dtype="int8")) == expected


def test_the_effective_rank_and_the_augmentation_spread_equal_the_program() -> None:
    """The two metrics without labels."""
    rows_ND, labels_N = labelled(0)
    (expected,) = measured("effective_rank", Labelled(rows_ND, labels_N))
    assert arm_metric("effective_rank")(rows_ND.numpy()) == expected.value
    assert arm_metric("effective_rank")(chunks(rows_ND, 20)) == expected.value
    views_VND = torch.stack([rows_ND, 1.1 * rows_ND, rows_ND + 0.3])
    (expected,) = measured("augmentation_spread", views_VND)
    assert arm_metric("augmentation_spread")(views_VND.numpy()) == expected.value
    assert arm_metric("augmentation_spread")([views_VND[0].numpy(), *views_VND[1:]]) == expected.value


@pytest.mark.parametrize("name", ["nccc", "knn"])
def test_a_classifier_equals_the_program_and_scikit_learn(name: str) -> None:
    """Bit for bit for the program; k is the number of neighbours."""
    (train, classes), (test, test_classes) = labelled(0), labelled(1, per_class=100)
    expected, metric = (
        measured(name, Labelled(train, classes), Labelled(test, test_classes), 0)[0].value,
        arm_metric(name),
    )
    assert 0.4 < expected < 0.9
    assert metric(train, classes, test, test_classes) == expected
    assert metric(train.numpy(), classes.tolist(), chunks(test, 70), chunks(test_classes.numpy(), 33)) == expected
    model = NearestCentroid() if name == "nccc" else KNeighborsClassifier(7, metric="cosine")
    options = {} if name == "nccc" else {"k": 7}
    score = model.fit(train.numpy(), classes.numpy()).score(test.numpy(), test_classes.numpy())
    assert metric(train, classes, test, test_classes, **options) == pytest.approx(score, abs=1e-12)


def test_the_linear_probe_has_the_two_protocols_of_the_program() -> None:
    """The seed chooses the held-out fifth."""
    (train, classes), (test, test_classes) = labelled(0), labelled(1, per_class=100)
    expected = ARM["linear_probe"].values(Labelled(train, classes), Labelled(test, test_classes), 3)
    for protocol in ("regularised", "paper"):
        found = arm_metric("linear_probe")(
            train.numpy(), classes, test.numpy(), test_classes, protocol=protocol, seed=3
        )
        assert found == expected[protocol].value


@pytest.mark.parametrize("name", ["few_shot", "few_shot_two_way"])
def test_few_shot_with_one_number_of_images_equals_that_row_of_the_program(name: str) -> None:
    """The draws for one m do not depend on the other values of m."""
    (train, classes), (test, test_classes) = labelled(0), labelled(1)
    module = import_module(ARM[name].values.__module__)
    all_of_them = measured(name, Labelled(train, classes), Labelled(test, test_classes), 3)
    for place, shots in enumerate(module.SHOTS[:4]):
        nccc, probe = all_of_them[2 * place : 2 * place + 2]
        found = arm_metric(name)(train.numpy(), classes, test.numpy(), test_classes, shots=shots, seed=3)
        assert found == {"nccc": nccc[0], "nccc_std": nccc[1], "probe": probe[0], "probe_std": probe[1]}
    assert 0 < arm_metric(name)(train, classes, test, test_classes, shots=3)["nccc"] < 1


LABELS = np.arange(6) % 2
BAD_SPLITS = [
    ("cdnv", (GOOD, LABELS[:5]), {}, "labels: 5 labels for the 6 rows of x"),
    ("cdnv", (GOOD, LABELS / 2), {}, "labels: expected integers, found float64"),
    ("cdnv", (GOOD, LABELS[:, None]), {}, "labels: expected one label per row [n], found 2-D"),
    ("cdnv", (GOOD, list("ababab")), {}, "labels: expected real numbers, found <U1"),
    ("etf_deviation", (NAN, LABELS), {}, "x: row 3, column 1 is nan"),
    ("effective_rank", (GOOD[:1],), {}, "x: 1 row; at least 2 are needed"),
    ("effective_rank", (torch.tensor(GOOD)[None],), {}, "x: expected 2-D rows [n, d], found 3-D (1x6x2)"),
    ("nccc", (GOOD, LABELS, GOOD[:, :1], LABELS), {}, "test: 1 columns, train has 2"),
    ("nccc", (GOOD, LABELS, GOOD[:0], LABELS[:0]), {}, "test: 0 rows; at least 1 are needed"),
    ("nccc", (GOOD, LABELS[:3], GOOD, LABELS), {}, "train_labels: 3 labels for the 6 rows of train"),
    ("knn", (GOOD, LABELS, GOOD, LABELS), {"k": 0}, "k: got 0; expected an integer of at least 1"),
    ("knn", (GOOD, LABELS, GOOD, LABELS), {"k": 2.5}, "k: got 2.5; expected an integer of at least 1"),
    ("few_shot", (GOOD, LABELS, GOOD, LABELS), {"shots": 0}, "shots: got 0"),
    ("few_shot_two_way", (GOOD, LABELS, GOOD, LABELS), {"seed": -1}, "seed: got -1"),
    (
        "linear_probe",
        (GOOD, LABELS, GOOD, LABELS),
        {"protocol": "papers"},
        "protocol: got 'papers'; expected one of",
    ),
    ("augmentation_spread", (GOOD,), {}, "views: expected [views, images, features], found 2-D"),
    ("augmentation_spread", (GOOD[None],), {}, "views: 1 view; at least 2 are needed"),
    ("augmentation_spread", ([GOOD, GOOD[:4]],), {}, "views[1]: shape (4, 2), views[0] has (6, 2)"),
    ("augmentation_spread", ([GOOD, NAN],), {}, "views[1]: row 3, column 1 is nan"),
]


@pytest.mark.parametrize(("name", "arguments", "options", "message"), BAD_SPLITS)
def test_bad_splits_and_options_are_named_in_one_line(name: str, arguments: Any, options: Any, message: str) -> None:
    """No long message of scikit-learn, and no wrong number."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        arm_metric(name)(*arguments, **options)
    assert message in str(caught.value)


def test_mutual_knn_refuses_an_invalid_number_of_neighbours() -> None:
    """The only pair metric with this option."""
    with pytest.raises(ValueError, match=r"^k: got 0; expected an integer of at least 1$"):
        pair_metric("mutual_knn")(GOOD, GOOD, k=0)


def weights(seed: int) -> dict[str, Tensor]:
    """A small network's tensors under the names of a snapshot."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,), "bn1.bias": (4,), "bn1.running_mean": (4,)}
    shapes |= {"layer1.0.conv1.weight": (4, 4, 3, 3), "fc.weight": (2, 4), "fc.bias": (2,)}
    return {f"encoder.{name}": torch.randn(*shape, generator=generator) for name, shape in shapes.items()} | {
        "encoder.bn1.num_batches_tracked": torch.tensor(seed),
        "projector.0.weight": torch.randn(5, 2, generator=generator),
    }


def test_the_weight_gap_of_state_dicts_equals_the_program(tmp_path: Path) -> None:
    """Bit for bit, aggregates included, for snapshots of a run and for names of a plain network."""
    store, arms = SnapshotStore(tmp_path), {"cl": weights(0), "nscl": weights(1)}
    for arm, tensors in arms.items():
        store.write(arm, 1, tensors, step=1, metadata={})
    with OpenSnapshots(store) as opened:
        expected = weight_gap.rows(opened, weight_gap.ComparedEpochs(1, None, None), [("cl", "nscl")])
    found = state_dicts.weight_gap(arms["cl"], arms["nscl"])
    columns = [*weights_module.Place._fields, *weights_module.Gap._fields[:7]]
    assert list(found.columns) == columns
    pd.testing.assert_frame_equal(
        found, pd.DataFrame([row[3:14] for row in expected], columns=columns), check_exact=True
    )
    plain = [
        {name.removeprefix("encoder."): each.numpy() for name, each in tensors.items() if name.startswith("encoder.")}
        for tensors in arms.values()
    ]
    of_encoder = found[~found.tensor.str.startswith("projector.")].reset_index(drop=True)
    of_encoder["tensor"] = of_encoder["tensor"].str.removeprefix("encoder.")
    pd.testing.assert_frame_equal(state_dicts.weight_gap(*plain), of_encoder, check_exact=True)
    assert list(state_dicts.weight_gap({"b": np.ones(3)}, {"b": np.ones(3)}).tensor) == ["b"]  # nothing to aggregate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.fc.weight": torch.zeros(2, 5)}, "layer 'encoder.fc.weight' has shape (2, 4) in one and (2, 5)"),
        ({"encoder.new.weight": torch.zeros(2)}, "layer 'encoder.new.weight' is in only one of the two"),
        (
            {"encoder.fc.bias": torch.tensor([0, torch.nan])},
            "arm: tensor 'encoder.fc.bias' has a value that is not",
        ),
        ({"epoch": 3}, "arm: 'epoch' is a int, not a tensor; pass the state dict itself"),
    ],
)
def test_state_dicts_that_do_not_fit_are_named_in_one_line(change: dict[str, Any], message: str) -> None:
    """A wrong shape would be broadcast to a wrong number."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        state_dicts.weight_gap(weights(0), weights(1) | change)
    assert message in str(caught.value)


def test_arguments_that_are_not_matching_state_dicts_are_refused() -> None:
    """A module, and two networks without a common tensor."""
    with pytest.raises(ValueError, match=r"^reference: expected a state dict \(tensors by name\), found Linear$"):
        state_dicts.weight_gap(torch.nn.Linear(1, 1), {})
    with pytest.raises(ValueError, match=r"^reference and arm have no floating-point tensor in common$"):
        state_dicts.weight_gap({}, {"n": torch.tensor(3)})


def test_the_examples_in_the_docstrings_are_right() -> None:
    """Of every metric, and every metric has one."""
    functions = [pair_metric(name) for name in pair_metric_names()] + [arm_metric(name) for name in ARM]
    for function in [*functions, state_dicts.weight_gap]:
        module = import_module(function.__module__)
        (test,) = doctest.DocTestFinder(recurse=False).find(function, module=module, globs=vars(module).copy())
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0, function.__name__


FACE = """
import sys
import coupled.metrics
assert not {"torch", "sklearn", "pandas"} & {*sys.modules}
assert "cka" in dir(coupled.metrics) and "weight_gap" in dir(coupled.metrics)
try:
    coupled.metrics.kca
except AttributeError as error:
    print(error)
"""


def test_the_metrics_package_imports_each_metric_on_first_use() -> None:
    """`import coupled.metrics` is cheap, and a misspelt name is reported with the existing ones."""
    done = subprocess.run([sys.executable, "-c", FACE], capture_output=True, text=True, cwd=tiny.REPOSITORY)
    assert done.stderr == ""
    assert done.stdout.startswith(
        "module 'coupled.metrics' has no metric 'kca' (known: angle, augmentation_spread, cdnv, cka,"
    )
    assert coupled.metrics.cka is pair_metric("cka")
    assert coupled.metrics.weight_gap is state_dicts.weight_gap
