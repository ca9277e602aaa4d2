"""docs/: the example of an objective works. Pages of settings are generated (`test_site.py`)."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from support import tiny

from coupled.config import by_name
from coupled.config.registry import find_objective
from coupled.objectives import Inputs

DOCS = tiny.REPOSITORY / "docs"


def block(page: str, language: str) -> str:
    """The page's only block of code in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(found)


def test_the_example_of_an_objective_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found as a user-defined file; equal views have loss 0."""
    (tmp_path / "cosine_only.py").write_text(block("reference/objectives.md", "python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    find = by_name.find
    own = lambda package, name: import_module(name) if name == "cosine_only" else find(package, name)  # noqa: E731
    monkeypatch.setattr(by_name, "find", own)
    objective = find_objective("mine", "cosine_only", {"weight": 2}, 0.5)
    one, other = torch.nn.functional.normalize(torch.randn(2, 6, 4, dtype=torch.float64), dim=-1)
    labels_B = torch.zeros(6, dtype=torch.int64)
    for views_VBP, expected in (
        (torch.stack([one, one]), 0.0),
        (torch.stack([one, -one]), 4.0),
        (torch.stack([one, other]), float(2 * (1 - (one * other).sum(1)).mean())),
    ):
        loss = objective.function(Inputs({"projection": views_VBP}, {}, labels_B, labels_B), **objective.options)
        assert float(loss.mean) == pytest.approx(expected, abs=1e-12)
        assert (int(loss.counted), int(loss.skipped)) == (6, 0)
    with pytest.raises(ValueError, match=r"arms\.mine: unknown option 'wieght'|arms\.mine\.wieght"):
        find_objective("mine", "cosine_only", {"wieght": 2}, 0.5)
