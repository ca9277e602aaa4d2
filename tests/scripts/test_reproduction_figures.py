"""Pictures of docs/reproduction.md: what their titles say, and that nothing of them is cut."""

import re

import pandas as pd
import pytest
import reproduce
import reproduction_cifar10 as cifar10
import reproduction_figures as figures
import reproduction_page as page
from matplotlib.figure import Figure
from PIL import Image
from support.reproduction_values import score, values_of


def drawn() -> list[Figure]:
    """The pictures of all claims and of CIFAR-10, from the values of two seeds and the last epoch."""
    made = []
    for name in (*dict.fromkeys(claim.sweep for claim in page.CLAIMS.values()), *cifar10.SWEEPS):
        path = reproduce.RESULTS / f"{name}.csv"
        if path.is_file():
            values = reproduce.reproduction_values.read(path)
            values = values[(values["seed"] < 2) & (values["epoch"] >= values["epoch"].max() - 39)]
            made += [claim.draw(values) for claim in page.CLAIMS.values() if claim.sweep == name and claim.draw]
            made += [cifar10.draw(name, values)] if name in cifar10.SWEEPS else []
    return made


def test_every_title_names_data_split_and_seeds() -> None:
    """A picture is seen without its section. Its panels are named by the score."""
    for figure in drawn():
        title = figure.get_suptitle() or figure.axes[0].get_title()
        assert re.search(r"n = \d seeds", title), title
        assert re.search(r"(test|train) images", title), title
        assert re.search(r"digits|fractals|CIFAR-10|demo|epoch 40", title), title


def test_every_picture_of_the_page_was_drawn_from_its_values() -> None:
    """A picture of an earlier measurement would stand beside the new table."""
    sweeps = {f"claim_{number}": claim.sweep for number, claim in page.CLAIMS.items()}
    pictures = sorted(reproduce.RESULTS.glob("*.png"))
    assert {path.stem for path in pictures} >= sweeps.keys()
    for path in pictures:
        values = reproduce.RESULTS / f"{sweeps.get(path.stem, path.stem)}.csv"
        with Image.open(path) as picture:
            assert picture.info["Source"] == f"{values.name} {reproduce.digest(values)}", path.name


def few(name: str = "linear probe") -> pd.DataFrame:
    return values_of(*(score(name, v, temperature=t) for t, v in ((0.1, 1.0), (0.5, 0.9))))


def test_a_long_title_of_a_narrow_picture_is_not_cut() -> None:
    """Claim 6 has one panel; a title in one line was wider than it."""
    values = pd.read_csv(reproduce.RESULTS / "classes.csv")
    figure = page.CLAIMS["6"].draw(values)  # type: ignore[misc]
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_a_point_at_the_limit_of_an_axis_is_drawn_whole() -> None:
    """An accuracy of 1 lies on the edge of its panel."""
    for lowest, figure in (
        (0.9, figures.against(few(), "temperature", ["linear probe"], title="t")),  # small differences are seen
        (0.0, figures.points(few(), "temperature", ["linear probe"], title="t")),
    ):
        (axes,) = figure.axes
        assert axes.get_ylim() == (lowest, 1.0)
        marked = [line for line in axes.lines if line.get_marker() != "None"]
        assert marked
        assert not any(line.get_clip_on() for line in marked)


@pytest.mark.parametrize("score_name", ["CKA", "W aligned with F, epoch 1"])
def test_no_axis_shows_a_similarity_or_cosine_above_1(score_name: str) -> None:
    figure = figures.points(few(score_name), "temperature", [score_name], title="t")
    assert figure.axes[0].get_ylim()[1] == 1.0


def test_a_legend_shows_the_marker_of_the_points() -> None:
    """Otherwise points of several series can be told apart by their colour only."""
    values = few().assign(rule="a")
    both = pd.concat([values, values.assign(rule="b")])
    figure = figures.against(both, "temperature", ["linear probe"], series="rule", title="t")
    (legend,) = figure.legends
    markers = [line.get_marker() for line in legend.get_lines()]
    assert len(set(markers)) == len(markers) == 2
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
