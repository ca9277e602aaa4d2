"""The demo's summary: the numbers of the CSV files, and a figure."""

from pathlib import Path

import pytest

from coupled.analysis.demo import curves, main
from coupled.config.schema import from_resolved
from coupled.storage.run_description import write_run_json

GAPS = """epoch,reference,arm,tensor,module,aggregate,kind,parameters,gap,distance,reference_norm,arm_norm,cosine
0,cl,nscl,,,mean,,9,0.0,0.0,1.0,1.0,1.0
0,cl,ce,,,mean,,9,0.0,0.0,1.0,1.0,1.0
2,cl,nscl,,,mean,,9,0.125,0.0,1.0,1.0,
2,cl,ce,,,mean,,9,0.5,0.0,1.0,1.0,
2,cl,ce,,,global,,9,0.75,0.0,1.0,1.0,
"""
SCORES = """epoch,split,reference,arm,module,metric,value,num_images
0,test,cl,ce,h,cka,1.0,357
0,test,cl,nscl,h,cka,1.0,357
0,test,cl,ce,h,rsa,1.0,357
0,test,cl,nscl,h,rsa,1.0,357
2,test,cl,ce,h,cka,0.25,357
2,test,cl,nscl,h,cka,0.875,357
2,test,cl,ce,h,rsa,,357
2,test,cl,nscl,h,rsa,0.75,357
2,test,cl,nscl,h,cka,0.111,50
2,test,cl,nscl,z,cka,0.222,357
2,test,scl,nscl,h,cka,0.333,357
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "analysis").mkdir()
    arms = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}
    settings = from_resolved({"name": "demo", "dataset": {"name": "digits"}, "arms": arms}).resolved()
    write_run_json(tmp_path, {"name": "demo", "settings": settings, "settings_sha256": 64 * "0", "dataset": {}})
    (tmp_path / "analysis/weight_gap.csv").write_text(GAPS)
    (tmp_path / "analysis/test_alignment.csv").write_text(SCORES)
    return tmp_path


def test_the_curves_are_those_of_the_reference_the_whole_split_and_h(run: Path) -> None:
    """Rows of another reference, layer or sample size stand in the same file."""
    measured = curves(run / "analysis", "cl")
    assert measured["gap"].loc[2].to_dict() == {"nscl": 0.125, "ce": 0.5}
    assert measured["cka"].loc[2].to_dict() == {"nscl": 0.875, "ce": 0.25}
    assert all(list(rows.columns) == ["nscl", "ce"] for rows in measured.values())


def test_it_prints_the_last_values_and_the_paths_and_draws(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a newcomer sees first."""
    assert main(["--run-dir", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [part for line in lines if "nscl" in line for part in line.split() if part[0].isdigit()] == [
        *("0.875", "0.750", "0.125")
    ]
    assert any(line.split() == ["│", "ce", "│", "0.250", "│", "nan", "│", "0.500", "│"] for line in lines)
    assert {str(run / "analysis/weight_gap.csv"), str(run / "analysis/demo.png")} <= set(lines)
    assert (run / "analysis/demo.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2, and which program writes the file."""
    assert main(["--run-dir", str(run), "--reference", "ce"]) == 2
    assert "no rows with the reference 'ce'" in capsys.readouterr().err
    (run / "analysis/test_alignment.csv").unlink()
    assert main(["--run-dir", str(run)]) == 2
    assert "test_alignment.csv: no such file; " in capsys.readouterr().err
