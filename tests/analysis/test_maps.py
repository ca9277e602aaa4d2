"""embed --project: maps of the same images, seeded and aligned with each other; their table and their figure."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from coupled.analysis.embed import main
from coupled.analysis.plots.map_figure import class_colours, draw
from coupled.analysis.representations.maps import projector, turned
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table


def rows_of(seed: int, n: int = 40, d: int = 6) -> NDArray[np.float64]:
    return np.random.Generator(np.random.Philox(seed)).normal(size=(n, d))


def test_a_map_has_a_panel_for_each_arm_and_a_row_for_each_epoch(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same points in all panels; equal networks have equal maps; a second call gives equal bytes."""
    command = ["--run-dir", str(drifting_run), "--project", "pca", "--arms", "nscl", "ce", "--epochs", "0,2"]
    command += ["--split", "test", "--num-images", "60"]
    for place in ("one", "other"):
        assert main([*command, "--output", str(tmp_path / place)]) == 0
    files = ("map.csv", "figures/map.png", "figures/map.pdf")
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes() for name in files)
    assert f"{tmp_path}/one/figures/map.png" in capsys.readouterr().out
    table = read_table(tmp_path / "one/map.csv", SCHEMAS["map.csv"].columns, ["nscl", "ce"])
    assert tuple(table) == SCHEMAS["map.csv"].columns
    panels = {key: part.reset_index(drop=True) for key, part in table.groupby(["epoch", "arm"])}
    assert list(panels) == [(0, "ce"), (0, "nscl"), (2, "ce"), (2, "nscl")]
    assert len({tuple(part["image"]) for part in panels.values()}) == 1
    assert {len(part) for part in panels.values()} == {60}
    assert panels[0, "ce"][["x", "y"]].equals(panels[0, "nscl"][["x", "y"]])
    assert not np.allclose(panels[2, "ce"]["x"], panels[2, "nscl"]["x"])
    figure = draw(table)
    axes = figure.axes
    assert [each.get_title() for each in axes] == ["nscl", "ce", "", ""]
    assert [each.get_ylabel() for each in axes] == ["epoch 0", "", "epoch 2", ""]
    (legend,) = [each for part in figure.subfigs for each in part.legends]
    assert [text.get_text() for text in legend.get_texts()] == [str(digit) for digit in range(10)]


def test_the_default_is_the_last_epoch_of_all_arms(drifting_run: Path) -> None:
    found = open_run(drifting_run).project("pca", split="test", num_images=10)
    assert list(dict.fromkeys(found["arm"])) == ["cl", "nscl", "scl", "ce"]
    assert set(found["epoch"]) == {2}


def test_pca_equals_numpy() -> None:
    rows = rows_of(1)
    found = projector("pca", 0)(rows)
    left, sizes, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(left[:, :2] * sizes[:2]), atol=1e-10)


def test_tsne_is_seeded_and_draws_from_no_global_generator() -> None:
    """Equal seeds give equal bits."""
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    one, again = (projector("tsne", 5)(rows_of(2)) for _ in range(2))
    assert np.array_equal(one, again)
    assert one.shape == (40, 2)
    assert np.ptp(one) > 0
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]


def test_umap_gets_the_seed_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a seed and several threads its result would depend on their timing. The library takes long to import."""
    given: dict[str, object] = {}

    class Reducer:
        def __init__(self, **options: object) -> None:
            given.update(options)

        def fit_transform(self, rows_ND: NDArray[np.float64]) -> NDArray[np.float64]:
            return rows_ND[:, :2]

    module = ModuleType("umap")
    module.UMAP = Reducer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "umap", module)
    found = projector("umap", 7)(rows_of(3, n=9))
    assert given == {"n_neighbors": 8, "random_state": 7, "n_jobs": 1}
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)


def test_maps_are_aligned_by_rotation_and_reflection() -> None:
    """A rotated and mirrored map is mapped back; PCA axes are only mirrored."""
    like = rows_of(4, d=2)
    turn = np.array([[0.6, -0.8], [-0.8, -0.6]])
    np.testing.assert_allclose(turned(like @ turn, like, "umap"), like, atol=1e-12)
    np.testing.assert_allclose(turned(like * [1, -1], like, "pca"), like, atol=1e-12)
    assert np.array_equal(np.abs(turned(like @ turn, like, "pca")), np.abs(like @ turn))


def test_equal_rows_stay_one_point() -> None:
    """A collapsed arm has no directions to project on."""
    for method in ("pca", "tsne"):
        assert np.array_equal(projector(method, 0)(np.ones((9, 4))), np.zeros((9, 2)))


def test_too_few_images_for_a_map_are_refused(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--run-dir", str(drifting_run), "--project", "pca", "--num-images", "4", "--split", "test"]
    assert main([*command, "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("--project: got 4 images; a map needs 5 or more\n")
    assert not (tmp_path / "map.csv").exists()


def points(labels: list[str | None]) -> pd.DataFrame:
    """Return one panel of map.csv with these labels."""
    about = {"epoch": 1, "arm": "cl", "layer": "h", "method": "tsne", "dataset": "/data/photos", "split": ""}
    xy = rows_of(5, n=len(labels), d=2)
    frame = pd.DataFrame({**about, "image": range(len(labels)), "label": labels, "x": xy[:, 0], "y": xy[:, 1]})
    return frame.astype({"label": "str"}).assign(num_images=len(labels))


def test_a_legend_names_every_class_and_the_unlabelled_points() -> None:
    """Long names that differ only at the end remain distinct."""
    names = [f"golden_retriever_of_the_class_{k}" for k in range(12)]
    figure = draw(points([*names, None, *names]))
    (legend,) = [each for part in figure.subfigs for each in part.legends]
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(set(shown)) == 13
    assert shown[-1] == "no label"
    assert max(map(len, shown)) <= 26
    assert len(set(class_colours(names).values())) == 12


def test_many_classes_get_a_colour_scale_and_no_labels_no_legend() -> None:
    """A legend of a hundred names could not be read."""
    many = draw(points([f"n{k:03d}" for k in range(100)]))
    assert not many.legends
    assert many.axes[-1].get_ylabel() == "class index (sorted by name)"
    none = draw(points([None] * 7))
    assert not none.legends
    assert not none.subfigs
    assert len(none.axes) == 1
