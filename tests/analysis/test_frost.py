"""Frost: the photographs are data of another package, which need not be installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from coupled.analysis import robustness
from coupled.analysis.corruptions import constants, weather
from coupled.analysis.corruptions.constants import CORRUPTIONS, PHOTOGRAPHS, generated, photographs_folder
from coupled.analysis.corruptions.draws import Draws
from coupled.analysis.corruptions.generate import corrupted
from coupled.analysis.run import open_run

needs_package = pytest.mark.skipif(photographs_folder() is None, reason=constants.INSTALL)


@pytest.fixture
def _without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were not installed."""
    monkeypatch.setattr(constants, "PACKAGE", "coupled_has_no_such_package")
    weather.photographs.cache_clear()


@pytest.mark.usefixtures("_without_package")
def test_without_the_package_frost_is_refused_before_any_image_is_read(
    drifting_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the command that installs it; the others must not be measured first."""
    monkeypatch.setattr(robustness, "load_sample", lambda *_: pytest.fail("read images"))
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), "--corruptions", "fog", "frost"]
    assert robustness.main(base) == 2
    error = capsys.readouterr().err
    assert error == (
        "coupled robustness: --corruptions: frost needs the photographs of imagecorruptions, which is not installed: "
        "pip install --no-deps imagecorruptions; or give a folder with --corrupted-images\n"
    )
    with pytest.raises(ValueError, match=r"^frost needs the photographs of imagecorruptions"):
        corrupted(np.zeros((8, 8, 3), np.uint8), "frost", 1)


@pytest.mark.usefixtures("_without_package")
def test_without_the_package_the_default_is_the_fourteen_others(
    drifting_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output says what the means leave out, and how to add it."""
    monkeypatch.setattr(robustness, "error_rates", lambda *_: {"ce": 0.5})
    rows = robustness.compute(open_run(drifting_run), arms="ce", severities=[1], num_images=4)
    assert [*dict.fromkeys(rows["corruption"])] == ["none", *(name for name in CORRUPTIONS if name != "frost")]
    said = capsys.readouterr().out
    assert "generated images: without frost (pip install --no-deps imagecorruptions); means are over the other" in said


def test_a_photograph_that_is_not_larger_than_the_image_is_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 64 px two photographs have 63 rows; a part outside of them would have another shape."""
    gradient = np.repeat(np.linspace(0, 255, 40)[:, None], 20, axis=1).astype(np.uint8)
    monkeypatch.setattr(weather, "photographs", lambda: (np.stack([gradient] * 3, 2),) * 5)
    found = weather.frost(np.zeros((20, 20, 3)), Draws(0, "frost", 1, 0), 1, 1, 1)
    assert found.shape == (20, 20, 3)
    steps = np.diff(found[..., 0], axis=0)
    np.testing.assert_allclose(steps, 1 / 39 / 1.1, atol=1.5 / 255)  # 1.1 times flatter than the photograph
    assert corrupted(np.zeros((100, 100, 3), np.uint8), "frost", 1).shape == (100, 100, 3)


@needs_package
def test_the_photographs_are_those_of_the_package() -> None:
    """Known sizes, and known bytes of a corrupted image; other photographs would be another corruption."""
    weather.photographs.cache_clear()
    assert [each.shape[1::-1] for each in weather.photographs()] == [
        *((900, 600), (560, 315), (560, 315), (527, 350), (660, 495)),
    ]
    assert generated() == CORRUPTIONS
    frosted = np.stack([corrupted(np.full((32, 32, 3), 90, np.uint8), "frost", 5, image=n) for n in range(4)])
    assert frosted[:, 0, 0].tolist() == [[105, 134, 140], [146, 147, 151], [166, 168, 173], [119, 125, 130]]


@needs_package
def test_other_photographs_in_the_package_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later release with other files would change every table without notice."""
    folder = photographs_folder()
    assert folder is not None
    for name in PHOTOGRAPHS:
        shutil.copy(folder / name, tmp_path)
    (tmp_path / PHOTOGRAPHS[4]).write_bytes((tmp_path / PHOTOGRAPHS[3]).read_bytes())
    monkeypatch.setattr(weather, "photographs_folder", lambda: tmp_path)
    weather.photographs.cache_clear()
    with pytest.raises(ValueError, match=r"other than those of imagecorruptions 1\.1\.2: pip install"):
        weather.photographs()
