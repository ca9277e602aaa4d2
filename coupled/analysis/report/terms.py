"""The words that occur on a report's page, each explained once; and text in which no line ends within a number."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupled.analysis.report.charts import Chart
from coupled.analysis.report.headline import Text
from coupled.analysis.report.page_tables import Table

if TYPE_CHECKING:
    from markupsafe import Markup  # comes with jinja2, which is an extra

NO_BREAK = "\N{NO-BREAK SPACE}"
# between the groups of a number's digits, a number and %, n and its value, the ends of an interval, and around ±
TOGETHER = re.compile(
    r"(?<=\d) (?=\d{3}(?!\d)|%)|(?<=\bn) (?==)|(?<=\bn =) |(?<=\S) (?=±)|(?<=±) |(?<=\d,) (?=[\d.-]+\])"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")  # a browser ends lines after a hyphen
MEANINGS = (  # pattern of its occurrence, term, meaning
    ("", "arm", "a network with its objective; the arms of a run have the same start, batches and augmentations"),
    (r"reference", "reference", "the arm that the others are compared with"),
    (r"\bh\b", "h", "the embedding: output of the encoder"),
    (r"\bz\b", "z", "the projection: output of the projector, on which the objective works"),
    (
        r"weight gap",
        "weight gap",
        "‖w_a - w_b‖ / (½ (‖w_a‖ + ‖w_b‖)) of the weights of two arms: 0 for equal, 2 for opposite weights",
    ),
    (r"\bupdate cosine\b", "update cosine", "cosine of the changes of the weights of two arms since the epoch before"),
    (r"\bcka|CKA", "CKA", "similarity of two representations of the same images by linear centred kernel alignment"),
    (
        r"\brsa|RSA",
        "RSA",
        "correlation of two representations' dissimilarities of all pairs of images; like CKA 1 at equal weights",
    ),
    (
        r"twin|noise floor",
        "twin, noise floor",
        "a second arm with the objective of the reference; a difference below that of a twin may be chance",
    ),
    (r"± sd|over seeds", "± sd, n", "standard deviation over seeds (n - 1), and the number of seeds"),
    (
        r"a posteriori",
        "a posteriori",
        "a bound from similarities that were measured after training; sharp: a tighter form",
    ),
    (r"a[ -]priori", "a priori", "a bound from learning rates and temperature, which are known before training"),
    (r"vacuous", "vacuous", "a bound that allows every value"),
    (r"\bnccc\b|NCCC", "NCCC", "accuracy of the nearest class centre"),
    (r"\bcdnv\b|CDNV", "CDNV", "class-distance normalised variance: spread within classes over their distance"),
    (r"\bAIC\b", "AIC", "Akaike's information criterion of a fit; lower is better"),
    (r"excess|share,", "direct arm", "the arm that minimises NSCL itself"),
)


@dataclass(frozen=True)
class Terms:
    """Terms with their meanings."""

    key: str
    title: str
    meanings: Sequence[tuple[str, str]]


def terms(parts: Sequence[Chart | Table | Text]) -> Terms:
    """Return the terms that occur in titles, captions, menus, legends, axes, and heads of tables."""
    text = "\n".join(each for part in parts for each in _texts(part))
    found = [(term, meaning) for pattern, term, meaning in MEANINGS if re.search(pattern, text)]
    return Terms("terms", "What the words mean", found)


def _texts(part: Chart | Table | Text) -> Iterator[str]:
    """The words of a part of the page, without the cells of tables."""
    if isinstance(part, Text):
        yield from (*part.sentences, part.note)
        return
    yield from (part.title, part.caption)
    if isinstance(part, Table):
        yield from part.columns
        return
    for name, figure in part.variants.items():
        yield name
        yield from (str(trace["name"]) for trace in figure["data"] if "name" in trace)
        axes = (axis for axis in figure["layout"].values() if isinstance(axis, dict))
        yield from (axis["title"]["text"] for axis in axes if "text" in axis.get("title", {}))


def unbroken(text: str) -> "Markup":
    """Return the text as HTML in which no line ends within "n = 1 440", "0.86 ± 0.02", "[0.84, 0.87]" or an option."""
    return with_options(TOGETHER.sub(NO_BREAK, text))


def with_options(text: str) -> "Markup":
    """Return the text as HTML in which no line ends within an option of a command; its characters stay the same."""
    from markupsafe import Markup, escape

    return Markup(OPTION.sub(r'<span class="whole">\g<0></span>', str(escape(text))))
