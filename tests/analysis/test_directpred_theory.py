"""coupled directpred-theory: its tables hold what the theory says, and its figures are drawn."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from coupled.analysis import directpred_theory
from coupled.analysis.directpred_theory import main
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table

TABLES = [name for name, schema in SCHEMAS.items() if schema.program == "directpred_theory"]
TABLES.remove("directpred_run.csv")  # of test_directpred_run.py


def test_the_tables_hold_what_the_theory_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The theorems hold in the rows, and modes end at a stable point. Figures are drawn; saving them takes too long."""
    figures: dict[str, int] = {}

    def record(figure: Figure, path: Path) -> list[Path]:
        figures[path.name] = len([axes for axes in figure.axes if axes.get_visible()])
        return [path]

    monkeypatch.setattr(directpred_theory, "save", record)
    command = ["--output", str(tmp_path), "--eta", "0.1", "--points", "2", "--time", "2000"]
    assert main(command) == 0
    printed = capsys.readouterr().out.split()
    assert [Path(each).name for each in printed[:4]] == TABLES
    assert figures == {"directpred_phase": 1, "directpred_parabola": 4, "directpred_sweep": 4}  # two colour bars
    tables = {name: read_table(tmp_path / name, SCHEMAS[name].columns) for name in TABLES}
    for name, table in tables.items():
        assert tuple(table) == SCHEMAS[name].columns
        assert not table.duplicated(list(SCHEMAS[name].key)).any()
    theorems = tables["directpred_theorems.csv"]
    equal = theorems[theorems["of"] == "invariant"]
    np.testing.assert_allclose(equal["measured"], equal["value"], atol=1e-6)
    limited = theorems[theorems["of"] == "commutator"]
    assert (limited["measured"] <= limited["value"] * 1.001 + 1e-9).all()
    for (eta, _), part in tables["directpred_trajectories.csv"].groupby(["eta", "start"]):
        expected = part["invariant"].iloc[0] * np.exp(-2 * eta * part["time"])
        np.testing.assert_allclose(part["invariant"], expected, atol=1e-6)
    sweep = tables["directpred_sweep.csv"]
    largest = 1 / (4 * 1.3)
    assert (sweep[sweep["eta"] > largest]["collapsed"] == "yes").all()
    kept = sweep[sweep["collapsed"] == "no"]
    assert len(kept)
    np.testing.assert_allclose(kept["p"], (1 + np.sqrt(1 - 4 * kept["eta"] * 1.3)) / 2.6, atol=1e-3)


def test_a_wrong_option_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--eta", "-1"]) == 2
    assert (
        capsys.readouterr().err
        == "coupled directpred-theory: argument --eta: got '-1'; a number of 0 or more is allowed\n"
    )
