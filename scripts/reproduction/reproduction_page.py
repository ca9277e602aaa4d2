"""Write the blocks of docs/reproduction.md from the files of docs/reproduction/.

A block is the text between `<!-- NAME -->` and `<!-- end -->`.
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import pandas as pd
import reproduction_cifar10
import reproduction_claims
import reproduction_distances
import reproduction_families
import reproduction_objectives
import reproduction_theory
import reproduction_values
from reproduction_statistics import Claim, captioned, markdown

SOURCES = (reproduction_claims, reproduction_theory, reproduction_objectives, reproduction_families)
CLAIMS: Mapping[str, Claim] = dict(
    sorted(((number, claim) for source in SOURCES for number, claim in source.CLAIMS.items()), key=lambda c: int(c[0]))
)
COSTS = {"training_minutes": "training (minutes)", "mib": "disk (MiB)", "start": "batch-norm start"}
DEMO = "classifiers"  # the sweep whose base is configs/demo.yaml
STARTS = {
    "all scales 1": "started with all batch-norm scales at 1, as the papers' networks do",
    "timm's": "have timm's start: the last batch-norm scale of every residual block is 0",
}


def filled(page: str, results: Path) -> str:
    """Return the page with every block rewritten from the CSV files.

    Raises ValueError for a block that nothing fills.
    """

    def block(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- {name} -->\n{_body(name, results)}\n<!-- end -->"

    return re.sub(r"<!-- ([^\n]+?) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def _body(name: str, results: Path) -> str:
    kind, _, rest = name.partition(" ")
    if kind == "claim" and rest in CLAIMS:
        return section(rest, results)
    if kind in reproduction_cifar10.SWEEPS:
        try:
            return reproduction_cifar10.block(kind, rest, values_of(kind, results))
        except KeyError:
            pass
    if name in WHOLE:
        return WHOLE[name](results)
    raise ValueError(
        f"docs/reproduction.md: nothing fills the block '{name}'; allowed are claim 1 to {len(CLAIMS)},"
        f" {', '.join(WHOLE)}, and one of {', '.join(reproduction_cifar10.SWEEPS)} with figure, verdict, sentences"
        f" and growth (cifar10 only), trend (not cifar10), {', '.join(reproduction_cifar10.TABLES)}"
    )


def values_of(sweep: str, results: Path) -> pd.DataFrame | None:
    """The values of every seed of a sweep; None if it was not measured."""
    path = results / f"{sweep}.csv"
    return reproduction_values.read(path) if path.is_file() else None


def section(number: str, results: Path) -> str:
    """The measured part of a claim: sentences, tables, figure."""
    claim = CLAIMS[number]
    values = values_of(claim.sweep, results)
    if values is None:
        return "not measured"
    answer = claim.answer(values)
    parts = [_bullets(answer.sentences), *starmap(captioned, answer.tables.items())]
    return "\n\n".join(["**Measured:**", *parts, *_image(number, results), f"**Verdict:** {answer.summary}."])


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _image(number: str, folder: Path) -> list[str]:
    image = folder / f"claim_{number}.png"
    return [f"![{CLAIMS[number].title}](reproduction/{image.name})"] if image.is_file() else []


def summary(results: Path) -> str:
    """The table of all verdicts."""
    rows = []
    for sweep, heading in reproduction_cifar10.HEADINGS.items():
        factor = reproduction_cifar10.FACTORS.get(sweep, ("", "", ""))[2]
        verdict = reproduction_cifar10.verdict(sweep, values_of(sweep, results))
        rows.append({"claim": _link(heading) + (f": {factor}" if factor else ""), "verdict at this scale": verdict})
    for number, claim in CLAIMS.items():
        values = values_of(claim.sweep, results)
        verdict = "not measured" if values is None else claim.answer(values).summary
        rows.append({"claim": _link(f"{number}. {claim.title}"), "verdict at this scale": verdict})
    return markdown(pd.DataFrame(rows))


def _link(heading: str) -> str:
    anchor = re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")
    return f"[{heading}](#{anchor})"


def costs(results: Path) -> str:
    """The table of costs."""
    return markdown(pd.read_csv(results / "costs.csv", dtype=str).rename(columns=COSTS))


def starts(results: Path) -> str:
    """Which claims have which initialisation of the batch-norm scales."""
    of_sweep = pd.read_csv(results / "costs.csv", dtype=str).set_index("sweep")["start"]
    known = {number: of_sweep[claim.sweep] for number, claim in CLAIMS.items() if claim.sweep in of_sweep}
    parts = []
    for start, words in STARTS.items():
        numbers = [number for number, each in known.items() if each == start]
        if numbers:
            parts.append(f"The runs of claims {_ranges([*map(int, numbers)])} {words}.")
    if len(parts) > 1:
        parts.append("Weight gaps of the two groups cannot be compared.")
    return "\n".join(textwrap.wrap(" ".join(parts), 118))


def _ranges(numbers: list[int]) -> str:
    """The text "1 to 12, 14" for sorted numbers."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    spans = [f"{group[0]} to {group[-1]}" if len(group) > 2 else ", ".join(map(str, group)) for group in groups]
    return ", ".join(spans)


def images(results: Path) -> str:
    """Whether natural images were measured."""
    if (results / f"{reproduction_cifar10.SWEEP}.csv").is_file():
        return (
            "Of natural images only CIFAR-10 was measured, at a small scale, in [Real images](#real-images-cifar-10)."
        )
    return "Nothing here was measured on natural images: the runs of [Real images](#real-images-cifar-10) are missing."


def demo(table: Callable[[pd.DataFrame], pd.DataFrame], results: Path) -> str:
    """A table of the demo."""
    values = values_of(DEMO, results)
    return "not measured" if values is None else markdown(table(values))


def demo_verdict(results: Path) -> str:
    """The verdict of the demo."""
    values = values_of(DEMO, results)
    return "not measured" if values is None else f"**Verdict:** {reproduction_distances.summary(values)}."


WHOLE: Mapping[str, Callable[[Path], str]] = {
    "summary": summary,
    "costs": costs,
    "starts": starts,
    "images": images,
    "demo last": partial(demo, reproduction_distances.final),
    "demo seeds": partial(demo, reproduction_distances.each_seed),
    "demo nearest": partial(demo, reproduction_distances.nearest),
    "demo paired": partial(demo, reproduction_distances.differences),
    "demo verdict": demo_verdict,
}
