"""The words on a report's page: terms are explained once, numbers do not break, numbers of images are named."""

import pandas as pd

from coupled.analysis.report.charts import Chart
from coupled.analysis.report.headline import Text
from coupled.analysis.report.page_tables import Table
from coupled.analysis.report.terms import terms, unbroken
from coupled.analysis.selections.panels import EPOCHS, Panel, n_of


def test_numbers_and_their_units_are_on_one_line() -> None:
    """On a telephone "n = 1 440" was cut into "n = 1" and "440"."""
    text = "n = 1 440 images, 95 % of 3 seeds: 0.86 ± 0.02, mean n = 3; 20 epochs"
    assert unbroken(text) == "n~=~1~440 images, 95~% of 3 seeds: 0.86~±~0.02, mean n~=~3; 20 epochs".replace(
        "~", "\u00a0"
    )
    assert unbroken("12 345 678, then 9 1234") == "12~345~678, then 9 1234".replace("~", "\u00a0")


def test_the_words_that_occur_on_the_page_are_explained_once() -> None:
    """`h` and "a posteriori" were in menus and legends, and nothing said what they are."""
    figure = {
        "data": [{"name": "ce · a posteriori sharp"}],
        "layout": {"yaxis": {"title": {"text": "CKA, train images"}}},
    }
    chart = Chart("key", "Title", "A bound is vacuous from 1 upwards.", {"cka, h, train images": figure})
    found = terms([Text("sentence", ["the nearest"]), chart, Table("last", "Last", "", ["NCCC (test, z)"], [])])
    assert [term for term, _ in found.meanings] == ["arm", "h", "z", "CKA", "a posteriori", "vacuous", "NCCC"]
    assert [term for term, _ in terms([Text("sentence", ["a hazy zoo"])]).meanings] == ["arm"]


def test_runs_with_different_numbers_of_images_are_named_as_such() -> None:
    """ "357 test images, 500 test images" read as if every line were of both."""
    panel = Panel((), "", EPOCHS, EPOCHS)
    for split, numbers in (("test", [357, 500]), ("train", [1440])):
        panel.count(pd.DataFrame({"num_images": numbers}), split)
    assert n_of([panel]) == "n = 357 or 500 test images, 1 440 train images"
