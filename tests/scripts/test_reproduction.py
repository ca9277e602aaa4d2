"""The page against its CSV files, and the program that writes both."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import reproduce
import reproduction_page as page
import reproduction_values
import yaml
from support.reproduction_values import score, values_of

TEXT = reproduce.PAGE.read_text(encoding="utf-8")


def test_the_page_agrees_with_its_csv_files() -> None:
    """All tables, sentences and verdicts are computed from the values of the seeds, not edited by hand."""
    assert page.filled(TEXT, reproduce.RESULTS) == TEXT
    assert all(f"<!-- claim {number} -->" in TEXT for number in page.CLAIMS)


def test_a_changed_value_changes_the_page(tmp_path: Path) -> None:
    """Otherwise a block of the page would not depend on the values of the seeds."""
    values = pd.read_csv(reproduce.RESULTS / "bridge.csv")
    place = values.query("score == 'CKA' and arm == 'nscl' and epoch == 40 and seed == 1").index
    values.loc[place, "value"] = 0.5
    for path in reproduce.RESULTS.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values.to_csv(tmp_path / "bridge.csv", index=False)
    assert page.section("13", tmp_path) != page.section("13", reproduce.RESULTS)


def test_headings_are_the_titles_of_the_claims() -> None:
    """A title is a topic. The summary table links to the heading of each claim."""
    for number, claim in page.CLAIMS.items():
        heading = f"{number}. {claim.title}"
        assert f"\n## {heading}\n" in TEXT
        anchor = re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        assert f"](#{anchor}) |" in TEXT
    for heading in reproduce.reproduction_cifar10.HEADINGS.values():
        assert re.search(f"\n##+ {heading}\n", TEXT)
        assert f"| [{heading}](#" in TEXT


def test_each_claim_says_what_it_does_not_show_and_why_numbers_differ() -> None:
    sections = re.split(r"\n## (?=\d+\. )", TEXT)[1:]
    assert len(sections) == len(page.CLAIMS)
    for section in sections:
        assert "**This does not show**" in section
        assert (
            "**Why the numbers differ from the published ones:**" in section or "**No number is published:**" in section
        )


def test_a_block_that_nothing_fills_is_refused(tmp_path: Path) -> None:
    for name in ("claim 99", "cifar10 trend", "cifar10_temperature sentences", "cost"):
        with pytest.raises(ValueError, match=f"nothing fills the block '{name}'"):
            page.filled(f"<!-- {name} -->\nx\n<!-- end -->", tmp_path)


def test_every_sweep_has_its_configuration() -> None:
    assert all((reproduce.CONFIGS / f"{name}.yaml").is_file() for name in (*reproduce.SWEEPS, *reproduce.LONG))


def test_a_claim_without_values_was_not_measured(tmp_path: Path) -> None:
    """Its block and its line of the summary say so, until its sweep has values."""
    assert page.section("2", tmp_path) == "not measured"
    (line,) = (line for line in page.summary(tmp_path).splitlines() if line.startswith("| [2. "))
    assert line.endswith("| not measured |")
    sweep = [score(name, t, temperature=t, epoch=40) for t in (0.1, 1.0) for name in ("CKA", "RSA", "weight gap")]
    values_of(*sweep).to_csv(tmp_path / "temperature.csv", index=False)
    assert "**Verdict:**" in page.section("2", tmp_path)
    (line,) = (line for line in page.summary(tmp_path).splitlines() if line.startswith("| [2. "))
    assert "not measured" not in line


def test_the_page_says_which_claims_have_which_start(tmp_path: Path) -> None:
    costs = pd.DataFrame({"sweep": ["controls", "bridge"], "start": ["timm's", "all scales 1"]})
    costs.to_csv(tmp_path / "costs.csv", index=False)
    told = page.starts(tmp_path).replace("\n", " ")
    assert "The runs of claims 13 started with all batch-norm scales at 1" in told
    assert "The runs of claims 1, 5, 7, 8 have timm's start" in told
    costs.assign(start="all scales 1").to_csv(tmp_path / "costs.csv", index=False)
    assert "timm" not in page.starts(tmp_path)


def test_values_select_one_cell_per_seed_epoch_and_pair() -> None:
    """Rows as in sweep.csv. A second value of the same score would become a meaningless mean."""
    base = dict.fromkeys(("module", "aggregate", "variant", "model", "quantity", "bound", "of", "loss_temperature"))
    base |= dict.fromkeys(("task", "shots", "component"))
    row = {"temperature": 0.5, "seed": 0, "run": "r", **base, "table": "test_alignment", "epoch": 1, "metric": "cka"}
    rows = [
        {**row, "reference": "cl", "arm": "nscl", "module": "h", "value": 0.9},
        {**row, "reference": "cl", "arm": "nscl", "module": "z", "value": 0.8},
        {**row, "reference": "scl", "arm": "ce", "module": "h", "value": 0.7},
        {**row, "reference": "scl", "arm": "ce", "module": "h", "value": 0.6, "epoch": 2},
    ]
    values = reproduction_values.select(pd.DataFrame(rows))
    assert list(values) == ["temperature", "seed", "epoch", "reference", "arm", "score", "value"]
    assert values["value"].tolist() == [0.9, 0.6]
    with pytest.raises(ValueError, match="CKA of arm nscl, epoch 1: two values"):
        reproduction_values.select(pd.DataFrame([*rows, {**rows[0], "value": 0.91}]))


@pytest.mark.parametrize(
    ("commit", "expected"),
    [
        ("0123456789abcdef0123456789abcdef01234567", "0123456789"),
        ("0123456789abcdef0123456789abcdef01234567+changes", "0123456789+changes"),
        ("0123456789ab+changes", "0123456789+changes"),  # of an installed wheel
    ],
)
def test_a_short_commit_keeps_the_mark_of_changes(commit: str, expected: str) -> None:
    """A run of changed code would be attributed to the commit."""
    assert reproduce.short(commit) == expected


def test_a_failed_sweep_does_not_change_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claims computed from an incomplete sweep would be wrong."""
    path = tmp_path / "page.md"
    path.write_bytes(reproduce.PAGE.read_bytes())
    monkeypatch.setattr(reproduce, "PAGE", path)
    written: list[str] = []
    monkeypatch.setattr(reproduce, "write_results", lambda runs, name: written.append(name))
    monkeypatch.setattr(reproduce.sweep, "main", lambda given: int("classes" in given[0]))
    assert reproduce.main(["--only", "classes", "epochs", "--runs-dir", str(tmp_path)]) == 1
    assert written == ["epochs"]
    assert "reproduce.py: classes failed; the page keeps the earlier results" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == TEXT


def test_results_of_a_finished_sweep_are_kept_if_the_next_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-C no further sweep starts. `make reproduce` runs for hours, and goes on where it was stopped."""
    begun: list[str] = []
    written: list[str] = []

    def main(given: Sequence[str]) -> int:
        begun.append(Path(given[0]).stem)
        return 130 if len(begun) == 2 else 0

    monkeypatch.setattr(reproduce.sweep, "main", main)
    monkeypatch.setattr(reproduce, "write_results", lambda runs, name: written.append(name))
    monkeypatch.setattr(reproduce, "write_page", lambda: written.append("page"))
    assert reproduce.main(["--runs-dir", str(tmp_path), "--only", *reproduce.SWEEPS[:3]]) == 130
    assert begun == [*reproduce.SWEEPS[:2]]
    assert written == [reproduce.SWEEPS[0], "page"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", sorted({*reproduce.SWEEPS, *reproduce.LONG} - {"cifar10_gpu"}))
def test_the_number_of_threads_does_not_depend_on_the_machine(name: str) -> None:
    """With two threads instead of one, the seeds of the demo had other numbers."""
    config = yaml.safe_load((reproduce.CONFIGS / f"{name}.yaml").read_text())
    base = yaml.safe_load((reproduce.CONFIGS / config["base"]).read_text())
    assert config.get("overrides", {}).get("num_threads", base.get("num_threads")) == 1
