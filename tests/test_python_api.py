"""`coupled` from Python: training, measuring and weights, in a script, in a thread and after an error."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from support import tiny

import coupled

SMALL: dict[str, Any] = {
    "epochs": 2,
    "num_threads": 1,
    "dataset": {"image_size": 8},
    "encoder": {"width_multiplier": 0.0625},
    "projector": {"hidden_dim": 32, "output_dim": 16},
    "arms": {"cl": "dcl", "nscl": "nscl"},
}


def switches() -> tuple[object, ...]:
    """Torch's global state that a run sets."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        torch.distributed.is_initialized(),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `coupled.train` with the packaged settings."""
    folder = tmp_path_factory.mktemp("api") / "x"
    coupled.train("demo", run_dir=folder, **SMALL)
    return folder


def test_the_python_example_of_the_readme_trains_measures_and_loads_the_encoder(folder: Path) -> None:
    """The values equal those of the CSV files."""
    run = coupled.open_run(folder)
    gaps = run.weight_gap(compare=["nscl"])
    scores = run.alignment(split="test", layers=["h"])
    assert isinstance(gaps, pd.DataFrame)
    assert (gaps[(gaps["aggregate"] == "global") & (gaps.epoch == 2)].gap > 0).all()
    assert set(scores.module) == {"h"}
    assert scores.query("epoch == 0 and metric == 'cka'").value.item() == 1
    encoder = run.encoder("nscl", epoch=2)
    assert encoder(torch.zeros(3, 3, 8, 8)).shape[0] == 3
    assert not encoder.training
    x, y = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), torch.eye(20)
    assert 0 <= coupled.metrics.cka(x, y) <= 1


@pytest.fixture
def others_switches() -> Iterator[None]:
    """Torch with the opposite of every switch that a run sets."""
    found = switches()
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, True
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(2)
    yield
    torch.use_deterministic_algorithms(bool(found[0]))
    torch.utils.deterministic.fill_uninitialized_memory = bool(found[1])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = bool(found[2]), bool(found[3])
    torch.set_float32_matmul_precision(str(found[4]))
    torch.set_num_threads(int(str(found[5])))


@pytest.mark.usefixtures("others_switches")
def test_a_second_run_has_the_same_bytes_and_restores_torch_switches(folder: Path, tmp_path: Path) -> None:
    """The run sets its switches and restores the previous ones, whatever these are."""
    before, meanwhile = switches(), []
    run = coupled.train("demo", run_dir=tmp_path / "again", **SMALL, on_epoch=lambda *_: meanwhile.append(switches()))
    assert switches() == before
    assert [each[:4] for each in meanwhile] == [(True, False, False, False)] * 2  # new memory is not filled, either
    assert tiny.snapshot_bytes(run.path) == tiny.snapshot_bytes(folder)


def test_a_run_in_a_thread_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """As in a background job of a notebook, where a run cannot handle signals."""
    thread = threading.Thread(target=coupled.train, args=("demo",), kwargs={"run_dir": tmp_path / "in", **SMALL})
    thread.start()
    thread.join()
    assert tiny.snapshot_bytes(tmp_path / "in") == tiny.snapshot_bytes(folder)


@pytest.mark.usefixtures("others_switches")
def test_a_call_after_an_error_works(tmp_path: Path) -> None:
    """A bad setting, an existing run folder and a non-finite loss raise exceptions and restore all global state."""
    before = switches()
    with pytest.raises(ValueError, match="unknown objective 'nowhere'"):
        coupled.train("demo", run_dir=tmp_path / "bad", **{**SMALL, "arms": {"cl": "nowhere"}})
    assert not (tmp_path / "bad").exists()
    wild = {"name": "sgd", "base_lr": 1e6, "clip_grad_norm": None}
    with pytest.raises(FloatingPointError, match="arm 'cl'"):
        coupled.train("demo", run_dir=tmp_path / "wild", **{**SMALL, "optimizer": wild})
    run = coupled.train("demo", run_dir=tmp_path / "good", **{**SMALL, "epochs": 0})
    with pytest.raises(ValueError, match="a run is already in"):
        coupled.train("demo", run_dir=run.path, **{**SMALL, "epochs": 0})
    assert switches() == before
    assert coupled.train("demo", run_dir=run.path, resume=True, **{**SMALL, "epochs": 0}).arms == run.arms


def test_an_error_in_on_epoch_ends_a_run_that_can_be_resumed(folder: Path, tmp_path: Path) -> None:
    """As for early stopping: on_epoch reads the snapshot of its epoch, and its error reaches the caller."""
    seen: list[tuple[int, float]] = []

    def gap(run: coupled.Run, epoch: int) -> None:
        found = run.weight_gap(epochs=epoch).query("aggregate == 'global' and module.isna()")
        seen.append((epoch, found.gap.item()))
        torch.rand(3)  # the run does not use the global generator
        if len(seen) == 1:
            raise LookupError("enough")

    run = tmp_path / "x"
    with pytest.raises(LookupError, match="enough") as raised:
        coupled.train("demo", run_dir=run, on_epoch=gap, **SMALL)
    assert raised.value.__notes__ == [
        "raised by on_epoch after epoch 1; this epoch is saved, and resume=True continues the run"
    ]
    coupled.train("demo", run_dir=run, resume=True, on_epoch=gap, **SMALL)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert 0 < seen[0][1] < seen[1][1]
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(folder)
    with pytest.raises(ValueError, match="on_epoch: got 3; allowed is a function"):
        coupled.train("demo", run_dir=run, on_epoch=3, **SMALL)


def test_dir_and_attribute_errors_list_the_public_names() -> None:
    """`dir(coupled)`, and the error for a misspelt name."""
    assert {"train", "open_run", "load_settings", "Run", "Settings", "metrics"} <= set(dir(coupled))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = coupled.trian
    assert coupled.load_settings("demo", ["seed=3"], epochs=1).seed == 3
