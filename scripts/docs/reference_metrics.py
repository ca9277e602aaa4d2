"""Generate the page of the metrics from the declarations and docstrings of their files."""

from collections.abc import Container
from math import isinf
from types import ModuleType

from markdown_text import code, docstring, plain, table

from coupled.config.by_name import find
from coupled.config.metric_registry import arm_metric_names, find_arm_metrics, pair_metric_names
from coupled.metrics.arm import INVARIANCES as OF_ARMS
from coupled.metrics.pair import INVARIANCES

SEES = {
    "classifier": "train images for training, test images for the score",
    "logits": "the logits of the arm's own classifier",
    "split": "the images of one split",
    "views": "several augmented views of each image",
}


def markdown() -> str:
    """Return the pair metrics, then the arm metrics: a summary table and one section for each metric."""
    pairs = {name: find("coupled.metrics.pair", name) for name in pair_metric_names()}
    arms = {name: find("coupled.metrics.arm", name) for name in arm_metric_names()}
    of_pairs = [
        [
            f"[{name}](#{name})",
            _range(module.RANGE),
            module.DIRECTION,
            "all images" if hasattr(module, "TRANSFORM") else f"at most {module.SUBSET}",
            "yes" if getattr(module, "SYMMETRIC", True) else "no",
            _listed(module.INVARIANCES),
        ]
        for name, module in pairs.items()
    ]
    of_arms = [
        [
            f"[{metric.name}](#{metric.name})",
            _range(metric.range),
            SEES[metric.sees],
            "yes" if metric.labels else "no",
            ", ".join(map(code, metric.variants)),
            _of_values(metric.invariances),
        ]
        for metric in find_arm_metrics(arms)
    ]
    parts = [
        "## Pair metrics",
        table(["metric", "range", "more similar is", "computed on", "symmetric", "invariant to"], of_pairs),
        table(["invariance", "allowed change of either representation"], map(_invariance, INVARIANCES.items())),
        *(_section(name, module) for name, module in pairs.items()),
        "## Arm metrics",
        table(["metric", "range", "input", "needs labels", "values", "invariant to"], of_arms),
        table(
            ["invariance", "allowed change of the input (features are classes for logits)"],
            map(_invariance, OF_ARMS.items()),
        ),
        *(_section(name, module) for name, module in arms.items()),
    ]
    return "\n\n".join(parts)


def _invariance(pair: tuple[str, str]) -> list[str]:
    return [pair[0], plain(pair[1])]


def _of_values(of_values: dict[str, frozenset[str]]) -> str:
    if len(set(of_values.values())) == 1:
        return _listed(next(iter(of_values.values())))
    return "; ".join(f"{code(name)}: {_listed(each)}" for name, each in of_values.items())


def _listed(invariances: Container[str]) -> str:
    return ", ".join(each for each in OF_ARMS if each in invariances)


def _section(name: str, module: ModuleType) -> str:
    of_pairs = hasattr(module, "value")
    described = docstring(getattr(module, name), summary=False, without=("Args", "Raises", "Example"))
    home = f"coupled.metrics.{'pair' if of_pairs else 'arm'}.{name}.{name}"
    call = f"From Python: [`coupled.metrics.{name}`](api.md#{home})."
    return "\n\n".join([f"### {name} {{ #{name} }}", docstring(module), described, call])


def _range(ends: tuple[float, float]) -> str:
    low, high = ("∞" if isinf(end) else f"{end:g}" for end in ends)
    return f"{low} to {high}"
