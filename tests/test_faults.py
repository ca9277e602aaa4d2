"""Faults during a long run: a second writer, a full disk, a failing writer, broken files, and causes for a warning."""

import errno
import fcntl
import os
import re
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import SoftFileLock
from support import forked, tiny
from torch import Tensor

from coupled import train
from coupled.arms.arm import Arm
from coupled.coordinator import Coordinator
from coupled.datasets import ImageDataset, check_labels
from coupled.parallel.process_group import process_group
from coupled.storage import checkpoint_writer, checkpoints, log_digests, run_lock
from coupled.storage.atomic_files import FULL, THEN, append_durably, write_durably
from coupled.storage.checkpoints import read_newest
from coupled.storage.run_log import CsvLog
from coupled.storage.snapshots import Entry, SnapshotStore
from coupled.storage.write_behind import BackgroundWriter
from coupled.stream.batches import Batch

ONE: dict[str, Any] = {"arms": {"cl": "dcl"}}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files that this process writes, which simulates a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_second_writer_is_refused_with_the_holder_of_the_lock(tmp_path: Path) -> None:
    """Two writers would corrupt the files; here a third process tries while another one trains."""
    with run_lock.run_lock(tmp_path / "run"):
        with pytest.raises(ValueError, match=rf"being written by process {os.getpid()} on {socket.gethostname()}"):
            tiny.train(tmp_path / "run", **ONE)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    assert not (tmp_path / "run").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """After SIGKILL the lock file remains; nobody should have to delete it by hand."""
    code = (
        "import os, signal, sys; from pathlib import Path; from coupled.storage.run_lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    (tmp_path / "holder.py").write_text(code)
    forked.Program(tmp_path / "holder.py", tmp_path / "run").communicate()
    assert (tmp_path / "run/lock").is_file()
    tiny.train(tmp_path / "run", epochs=0, **ONE)
    assert not (tmp_path / "run/lock").exists()


@pytest.mark.parametrize(("alive", "here"), [(True, True), (False, True), (True, False)])
def test_without_flock_the_process_of_the_lock_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool, here: bool
) -> None:
    """Some cluster file systems have no flock; a process on another machine is assumed to be alive."""

    def unsupported(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    process, machine = os.getpid(), socket.gethostname()
    if alive and here:
        held = SoftFileLock(tmp_path / "lock")
        held.acquire()
    elif here:
        code = "import os, sys, filelock; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(0)"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=True)
        assert (tmp_path / "lock").is_file()
    else:
        process, machine = 1, "elsewhere"
        (tmp_path / "lock").write_text(f"{process}\n{machine}\n")
    if alive:
        with pytest.raises(ValueError, match=f"process {process} on {machine}"), lock(tmp_path):
            pass
    else:
        with lock(tmp_path):
            assert (tmp_path / "lock").read_text().startswith(f"{process}\n{machine}")
        assert not (tmp_path / "lock").exists()


lock = run_lock.run_lock
WRITTEN = {"run.json", "steps.csv", "epochs.csv", "log_digests.jsonl", "snapshots", "checkpoints"}


def test_a_run_killed_during_its_first_write_can_be_started_again(tmp_path: Path) -> None:
    """Its folder exists but holds no run, so neither --resume nor --overwrite must be required."""
    for number, options in enumerate(({}, {"resume": True}, {"overwrite": True})):
        run = tmp_path / str(number)
        run.mkdir()
        (run / "lock").write_text("")
        (run / "run.json.tmp").write_text('{"format": "cou')
        tiny.train(run, epochs=0, **options, **ONE)
        assert {path.name for path in run.iterdir()} == WRITTEN
    (tmp_path / "3").mkdir()
    (tmp_path / "3/thesis.tex").touch()
    with pytest.raises(ValueError, match="exists and is not a run folder"):
        tiny.train(tmp_path / "3", **ONE)


def test_nothing_is_written_through_a_symbolic_link(tmp_path: Path) -> None:
    """Otherwise the author of a run folder could make a user's file be overwritten or a folder be emptied."""
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    (outside / "mine.tmp").write_text("mine")
    for name in ("lock", "run.json.tmp", "steps.csv", "epochs.csv.tmp", "manifest.jsonl"):
        (outside / name).touch()
    run.mkdir()
    (run / "lock").symlink_to(outside / "lock")
    with pytest.raises(
        ValueError, match=r"--run-dir: '\S+/lock' is a symbolic link, but must be a file of the run; delete"
    ):
        tiny.train(run, epochs=0, **ONE)
    (run / "lock").unlink()
    (run / "run.json.tmp").symlink_to(outside / "run.json.tmp")
    tiny.train(run, max_steps=1, **ONE)
    rows = (run / "steps.csv").read_bytes()
    (run / "steps.csv").unlink()
    (run / "steps.csv").symlink_to(outside / "steps.csv")
    with pytest.raises(ValueError, match=r"steps\.csv: rows are missing: expected all up to step 1"):
        tiny.train(run, resume=True, **ONE)
    (run / "steps.csv").unlink()
    (run / "steps.csv").write_bytes(rows)
    (tmp_path / "manifest.jsonl").symlink_to(outside / "manifest.jsonl")
    with pytest.raises(OSError, match=r"manifest\.jsonl: is a symbolic link, but the run writes"):
        append_durably(tmp_path / "manifest.jsonl", "a line")
    (run / "epochs.csv.tmp").symlink_to(outside / "epochs.csv.tmp")
    with pytest.raises(OSError, match=r"epochs\.csv: is a symbolic link, but the run writes a file here; delete"):
        tiny.train(run, resume=True, **ONE)
    for name in ("snapshots", "snapshots/cl", "checkpoints", "replay", "trackers", "tensorboard", "wandb"):
        there = run / name
        if there.exists():
            there.rename(tmp_path / "aside")
        there.symlink_to(outside)
        with pytest.raises(ValueError, match=rf"--resume: '{there}' is a symbolic link to a folder; replace the link"):
            tiny.train(run, resume=True, **ONE)
        there.unlink()
        if (tmp_path / "aside").exists():
            (tmp_path / "aside").rename(there)
    assert sorted(path.name for path in outside.iterdir() if path.read_text() != "") == ["mine.tmp"]
    (run / "trackers").mkdir()
    (run / "trackers/tensorboard.json.tmp").symlink_to(outside / "mine.tmp")
    run.rename(outside / "run")
    run.symlink_to(outside / "run")
    tiny.train(run, resume=True, trackers=["tensorboard"], **ONE)  # the whole folder may be a link
    assert (run / "trackers/tensorboard.json").is_file()
    assert (outside / "mine.tmp").read_text() == "mine"


COMMAND = ["--config", "tiny.yaml", "--run-dir"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings and `whole`, an undisturbed run of 5 steps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(tiny.TINY_YAML + "arms: {cl: dcl}\nnum_threads: 1\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert train.main([*COMMAND, "whole"]) == 0
    return folder


@pytest.mark.parametrize("harm", ["moved", "replaced", "deleted", "lock"])
def test_a_run_folder_that_disappears_stops_the_run_with_a_working_command(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    """Otherwise the rest of the run would go into an incomplete new folder of the same name; and without the file
    `lock` a second process may write.
    """
    monkeypatch.chdir(undisturbed)
    run, elsewhere = undisturbed / harm, undisturbed / f"{harm}_elsewhere"
    gradients, calls = Arm.gradients, []

    def harmed(arm: Arm, batch: Batch) -> Tensor:
        calls.append(batch.number)
        if len(calls) == 3:
            while not (run / "checkpoints/step_00000000").exists():  # written by another thread
                time.sleep(0.001)
            if harm == "lock":
                (run / "lock").unlink()
            else:
                run.rename(elsewhere)
            if harm == "replaced":
                shutil.copytree(elsewhere, run)
            if harm == "deleted":
                shutil.rmtree(elsewhere)
        return gradients(arm, batch)

    monkeypatch.setattr(Arm, "gradients", harmed)
    assert train.main([*COMMAND, harm]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        {
            "deleted": r"coupled train: the run folder 'deleted' was deleted or moved while .*\n",
            "lock": r"coupled train: 'lock/lock' was deleted or replaced while .*\n",
        }.get(harm, rf"coupled train: the run folder '{harm}' was moved to '{elsewhere}' while .*\n"),
        told,
    )
    assert run.exists() == (harm in ("lock", "replaced")), "nothing may be made anew under the old name"
    assert train.main(shlex.split(told.partition("continue it with: coupled train ")[2])) == 0
    run = elsewhere if harm in ("moved", "replaced") else run
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(undisturbed / "whole")
    assert (run / "steps.csv").read_bytes() == (undisturbed / "whole/steps.csv").read_bytes()


def test_the_folder_of_a_moved_run_is_not_created_again(tmp_path: Path) -> None:
    """A folder may be moved while the other thread writes; an incomplete run would appear under the old name."""
    gone, tensors = tmp_path / "gone", {"network/w": torch.zeros(1)}
    store = SnapshotStore(gone / "snapshots")
    writes: list[Callable[[], Any]] = [
        lambda: store.write_file("cl", 0, tensors, step=0, metadata={}),
        lambda: store.add(Entry("cl", 0, 0, "cl/epoch_0000.safetensors", "", 0)),
        lambda: checkpoints.write_part(gone / "checkpoints", 0, "cl", tensors),
        lambda: log_digests.append(gone, log_digests.LogState("", 0, 0, 0, "", 0, "")),
    ]
    for write in writes:
        with pytest.raises(FileNotFoundError, match="gone"):
            write()
    assert not gone.exists()


def test_a_damaged_or_foreign_checkpoint_is_refused_and_the_suggested_fix_works(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the check, a flipped bit could repeat a step or give a wrong loss, and another run's state would be
    continued without a warning.
    """
    monkeypatch.chdir(undisturbed)
    for name, *more in (("stopped",), ("other", "seed=9")):
        assert train.main([*COMMAND, name, "--max-steps", "3", *more]) == 0
    checkpoint, text = (
        Path("checkpoints/step_00000003"),
        Path("stopped/checkpoints/step_00000003/state.json").read_text(),
    )
    loss = re.search(r'"cl": \[\s+(\d\.\d+)', text)
    assert loss
    harms: dict[str, Callable[[Path], Any]] = {
        "step": lambda head: head.write_text(text.replace('"step": 3', '"step": 2')),
        "sum": lambda head: head.write_text(text.replace(loss[1], str(9 - int(loss[1][0])) + loss[1][1:])),
        "key": lambda head: head.write_text(text.replace('"epoch"', '"epoci"')),
        "run": lambda head: (shutil.rmtree(head.parent), shutil.copytree("other" / checkpoint, head.parent)),
    }
    for harm, do in harms.items():
        shutil.copytree("stopped", harm)
        do(harm / checkpoint / "state.json")
        capsys.readouterr()
        assert train.main([*COMMAND, harm, "--resume"]) == 2
        remedy = f"; delete {harm / checkpoint} to continue from step_00000000"
        assert re.fullmatch(rf"coupled train: {harm / checkpoint}/state\.json: .*{remedy}\n", capsys.readouterr().err)
    shutil.rmtree("run" / checkpoint)
    shutil.copytree("whole/checkpoints", "run/checkpoints/a copy")
    assert train.main([*COMMAND, "run", "--resume"]) == 0
    assert tiny.snapshot_bytes(Path("run")) == tiny.snapshot_bytes(Path("whole"))
    assert Path("run/steps.csv").read_bytes() == Path("whole/steps.csv").read_bytes()


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the bytes needed and free; written files stay complete; with free space the run ends equal."""
    tiny.train(tmp_path / "whole", **ONE)
    gradients, run = Arm.gradients, tmp_path / "run"
    at_start = {}

    def limited(arm: Arm, batch: Batch) -> Tensor:
        if (batch.epoch, batch.number) == (2, 1) and not at_start:
            while not (run / "checkpoints/step_00000005").exists():
                time.sleep(0.001)
            at_start.update({path: path.read_bytes() for path in run.glob("[rs][en]*/**/*") if path.is_file()})
            soft = max((run / "steps.csv").stat().st_size, (run / "epochs.csv").stat().st_size) + 4000
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return gradients(arm, batch)

    monkeypatch.setattr(Arm, "gradients", limited)
    with (
        largest_file(2**40),
        pytest.raises(OSError, match=r"epoch_0002\S+: File too large: [\d,]+ bytes needed"),
    ):
        tiny.train(run, **ONE)
    assert at_start
    assert {path: path.read_bytes() for path in at_start} == at_start
    assert not list(run.rglob("*.tmp"))
    assert SnapshotStore(run / "snapshots").epochs("cl") == [0, 1]
    monkeypatch.setattr(Arm, "gradients", gradients)
    tiny.train(run, resume=True, **ONE)
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(tmp_path / "whole")
    assert (run / "steps.csv").read_bytes() == (tmp_path / "whole/steps.csv").read_bytes()


def test_a_failed_write_leaves_no_partial_file_or_row(tmp_path: Path) -> None:
    """A partial file would fill a full disk further; a partial row would be read as a row."""
    write_durably(tmp_path / "file", b"old")
    append_durably(tmp_path / "rows", "one\n")
    with largest_file(100):
        with pytest.raises(
            OSError, match=r"file: File too large: 200 bytes needed; free space or raise the limit, then start again"
        ):
            write_durably(tmp_path / "file", b"x" * 200)
        with pytest.raises(OSError, match=r"rows: File too large: 200 bytes needed"):
            append_durably(tmp_path / "rows", "y" * 200)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old", "rows": b"one\n"}


@pytest.mark.parametrize(
    ("call", "number", "message"),
    [
        ("mkdir", errno.EACCES, "folder: Permission denied"),
        ("open", errno.EROFS, "folder/file: Read-only file system"),
        ("fsync", errno.EIO, "folder/file: Input/output error"),
        ("fsync", errno.EDQUOT, "folder/file: Disk quota exceeded: 3 bytes needed"),
        ("fsync", errno.ENOSPC, "folder/file: No space left on device: 3 bytes needed, {free} bytes free on the disk"),
        ("replace", errno.EPERM, "folder/file: Operation not permitted"),
        ("mkdir", errno.ENOSPC, "folder: No space left on device: {free} bytes free on the disk"),
    ],
)
def test_a_failed_write_names_the_path_and_the_true_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, message: str
) -> None:
    """Free space is stated for a full disk only, not for missing permission or an exceeded quota."""
    (tmp_path / "rows.csv").write_text("step\n")
    rows = CsvLog(tmp_path / "rows.csv", ["step"])

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=path.exists() and 7654))
    monkeypatch.setattr(os, call, fail)
    then = THEN if number in FULL else ""
    expected = re.escape(f"{tmp_path}/{message.format(free='7,654')}{then}") + "$"
    for write in (write_durably, lambda path, data: append_durably(path, data.decode())):
        if call != "replace" or write is write_durably:
            with pytest.raises(OSError, match=expected):
                write(tmp_path / "folder/file", b"new")
    if call == "fsync":
        with pytest.raises(OSError, match=rf"rows\.csv: {os.strerror(number)}"):
            rows.sync()
    monkeypatch.undo()
    assert not [
        path for path in tmp_path.rglob("*") if path.name != "rows.csv" and path.is_file() and path.read_bytes()
    ]
    rows.close()


def test_an_error_while_writing_the_lock_is_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path. A folder without write permission is an invalid --run-dir, status 2."""
    for number, kind, message in (
        (errno.ENOSPC, OSError, r"run/lock: No space left on device: [\d,]+ bytes free"),
        (errno.EDQUOT, OSError, r"run/lock: Disk quota exceeded; free space"),
        (errno.EACCES, ValueError, r"--run-dir: cannot write to '\S+/run': Permission denied$"),
    ):

        def fail(*_: Any, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", fail)
            with pytest.raises(kind, match=message), lock(tmp_path / "run"):
                pass
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda *_: fail(number=errno.ENOSPC))
        with pytest.raises(OSError, match=r"run/lock: No space left"), lock(tmp_path / "run"):
            pass
    with lock(tmp_path / "run"):  # which a failure before does not hold
        pass


def test_a_run_whose_snapshots_do_not_fit_is_refused_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at the start, not after three days; no folder is created."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"snapshots: \d MiB needed, 0 MiB free .*snapshots.check_free_space=false"):
        tiny.train(tmp_path / "run", **ONE)
    assert not (tmp_path / "run").exists()
    tiny.train(tmp_path / "run", **ONE, epochs=1, snapshots={"check_free_space": False})


def test_a_failing_writer_stops_the_run_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise training would continue while nothing is saved; the checkpoint does not claim the missing snapshot.

    The failure is noticed at the next step, not at the next snapshot.
    """
    write, gradients, failed = SnapshotStore.write_file, Arm.gradients, threading.Event()

    def failing(store: SnapshotStore, arm: str, epoch: int, *rest: Any, **more: Any) -> Entry:
        if epoch == 1:
            failed.set()
            raise OSError("the disk is on fire")
        return write(store, arm, epoch, *rest, **more)

    def slow(arm: Arm, batch: Batch) -> Tensor:
        if (batch.epoch, batch.number) == (2, 1):
            assert failed.wait(60)
            time.sleep(0.3)
        return gradients(arm, batch)

    monkeypatch.setattr(SnapshotStore, "write_file", failing)
    monkeypatch.setattr(Arm, "gradients", slow)
    with pytest.raises(OSError, match="the disk is on fire"):
        tiny.train(tmp_path / "run", **ONE)
    state = read_newest(tmp_path / "run/checkpoints")
    assert state is not None
    assert state.step == 0
    assert len((tmp_path / "run/steps.csv").read_text().splitlines()) < 1 + 10


def test_write_jobs_after_a_failed_one_are_not_started_and_the_queue_is_bounded() -> None:
    """A later checkpoint would count the lost snapshot as done; queued copies must not fill the memory."""
    done: list[str] = []
    behind = BackgroundWriter(2)

    def fail() -> None:
        raise OSError("full")

    behind.put(lambda: done.append("first"))
    behind.put(fail)
    with pytest.raises(OSError, match="full"):
        give(behind, [lambda: done.append("second"), lambda: done.append("third")])
    behind.close()
    assert done == ["first"]


def give(behind: BackgroundWriter, jobs: list[Callable[[], None]]) -> None:
    for job in jobs:
        behind.put(job)


def test_the_tensors_of_a_state_are_copied_before_training_goes_on() -> None:
    """The writer would otherwise write weights that are being changed."""
    weight = torch.ones(3)
    copied = checkpoint_writer.on_host({"w": weight})
    weight.zero_()
    assert torch.equal(copied["w"], torch.ones(3))


def test_labels_that_no_class_has_and_classes_without_images_are_refused() -> None:
    """A label out of range gives a wrong loss, or a crash on the device far from its cause."""

    def images(*labels: int) -> ImageDataset:
        pixels = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
        return ImageDataset("mine", "train", pixels, torch.tensor(labels), ("cat", "dog"), (0, 0, 0), (1, 1, 1))

    check_labels(images(0, 1, 1))
    with pytest.raises(ValueError, match=r"dataset: 'mine', train image 1 has label 2; allowed are 0 to 1"):
        check_labels(images(0, 2))
    with pytest.raises(ValueError, match=r"train image 0 has label -1"):
        check_labels(images(-1, 1))
    with pytest.raises(ValueError, match=r"dataset: 'mine' has no train image of class 'dog'"):
        check_labels(images(0, 0))


@pytest.mark.slow
def test_each_warning_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped anchors, a collapsed projection, a class that cannot be balanced: training itself continues."""
    tiny.train(tmp_path / "good", epochs=1, **ONE)
    assert "warning:" not in capsys.readouterr().out
    read = Arm.read
    monkeypatch.setattr(Arm, "read", lambda arm, numbers_4: read(arm, numbers_4)._replace(skipped_anchors=10))
    monkeypatch.setattr(Arm, "projection_spread", lambda arm: 0.01)
    tiny.train(tmp_path / "bad", batch={"size": 8, "sampler": "balanced"}, **ONE, max_steps=181)
    out = capsys.readouterr().out
    assert out.count("warning:") == 3
    assert "warning: batch.sampler: class '0' and 9 other classes cannot be in every batch: 14" in out
    assert out.count("warning: arm cl: 62.5% of the epoch's anchors had no positive or no negative") == 1
    assert out.count("warning: arm cl: the projections are collapsing: their standard deviation is 0.01") == 1


def test_the_spread_of_projections_is_1_for_isotropic_and_0_for_equal_rows(tmp_path: Path) -> None:
    """The measure behind the collapse warning."""
    with process_group("cpu") as group:
        arm = Coordinator(tiny.tiny_settings(**ONE), group, tmp_path / "run").arms[0]
    assert arm.projection_spread() is None
    even = torch.randn(2, 500, 16, generator=torch.Generator().manual_seed(0))
    arm.projection_VBP = torch.nn.functional.normalize(even, dim=-1)
    assert arm.projection_spread() == pytest.approx(1, abs=0.02)
    arm.projection_VBP = arm.projection_VBP[:, :1].expand(2, 500, 16) * 0 + 0.25
    assert arm.projection_spread() == pytest.approx(0, abs=1e-6)
