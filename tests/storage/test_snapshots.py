"""Snapshots: written tensors are read back, equal content gives equal bytes, and damage is detected."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from coupled.storage.snapshots import BadSnapshotError, SnapshotStore, snapshot_epochs, tensors_digest

TENSORS = {"encoder.b": torch.arange(6.0).reshape(2, 3), "encoder.a": torch.ones(2), "encoder.n": torch.tensor(7)}
ABOUT = {"run": "r", "settings_sha256": "s"}


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    store = SnapshotStore(tmp_path)
    for arm in ("cl", "nscl"):
        for epoch in (0, 1, 2, 10):
            store.write(arm, epoch, TENSORS, step=epoch * 5, metadata=ABOUT)
    return store


def test_written_snapshots_are_read_back_unchanged(store: SnapshotStore) -> None:
    """Floats are stored as contiguous float32; integers keep their dtype."""
    read = store.read("cl", 10)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    store.write("cl", 11, {"encoder.b": TENSORS["encoder.b"].double().T}, step=55, metadata=ABOUT)
    assert store.read("cl", 11)["encoder.b"].dtype == torch.float32
    assert torch.equal(store.read("cl", 11)["encoder.b"], TENSORS["encoder.b"].T)


def test_epochs_are_sorted_as_numbers(store: SnapshotStore) -> None:
    """As text, 10 comes before 2."""
    assert store.arms() == ["cl", "nscl"]
    assert store.epochs("cl") == [0, 1, 2, 10]


def test_equal_snapshots_are_equal_bytes(tmp_path: Path) -> None:
    """safetensors orders several metadata keys at random, anew at each call; equal runs must give equal files."""
    tensors = {"encoder.a": torch.ones(2), "encoder.b": torch.zeros(3)}
    metadata = {f"key {i}": "x" for i in range(8)}  # two of 40 000 orders are hardly the same
    for name in ("one", "two"):
        SnapshotStore(tmp_path / name).write("cl", 0, tensors, step=0, metadata=metadata)
    contents = {(tmp_path / name / "cl/epoch_0000.safetensors").read_bytes() for name in ("one", "two")}
    assert len(contents) == 1


def test_a_flipped_bit_is_detected(store: SnapshotStore) -> None:
    """A damaged weight would become a wrong figure."""
    path = store.path("cl", 2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"epoch_0002\.safetensors: damaged or foreign: expected .*, found .* \w+"):
        SnapshotStore(store.folder).read("cl", 2)
    with pytest.raises(BadSnapshotError, match="damaged"), store.open("cl", 2):
        pass


def agree(store: SnapshotStore, arm: str, epoch: int) -> None:
    """Write the digest of the changed file into the manifest, as a forged run folder would."""
    lines = [json.loads(line) for line in store.manifest.read_text().splitlines()]
    for line in lines:
        if (line["arm"], line["epoch"]) == (arm, epoch):
            data = store.path(arm, epoch).read_bytes()
            line |= {"digest": hashlib.blake2b(data, digest_size=32).hexdigest(), "bytes": len(data)}
    store.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    store.checked.clear()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 90)
        + b'{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}'.ljust(90),
        struct.pack("<Q", 60) + b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}'[:60] + b"\0" * 4,
        b"",
        b"PK\x03\x04" * 100,
    ],
)
def test_a_safetensors_file_with_a_false_header_is_refused(store: SnapshotStore, data: bytes) -> None:
    """A header of 2^60 bytes or a tensor of 4 TiB must be refused without allocating that size."""
    store.path("cl", 1).write_bytes(data)
    agree(store, "cl", 1)
    with pytest.raises(BadSnapshotError, match=r"epoch_0001\.safetensors: not a readable safetensors"):
        store.read("cl", 1)


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "nscl/epoch_0001.safetensors"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(store: SnapshotStore, file: str) -> None:
    """Run folders may be untrusted."""
    lines = store.manifest.read_text().splitlines(keepends=True)
    store.manifest.write_text("".join([lines[0], lines[1].replace("cl/epoch_0001.safetensors", file), *lines[2:]]))
    with pytest.raises(ValueError, match=r"manifest\.jsonl line 2: .* is not the file of arm 'cl'"):
        store.read("cl", 1)


def test_truncated_foreign_and_missing_files_are_named(store: SnapshotStore) -> None:
    """The error states the path, the expected value and the value found."""
    path = store.path("cl", 1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadSnapshotError, match=r"damaged or foreign: expected \d+ bytes with .*, found 20 with"):
        store.read("cl", 1)
    agree(store, "cl", 1)
    with pytest.raises(ValueError, match=r"epoch_0001\.safetensors: not a readable safetensors"), store.open("cl", 1):
        pass
    path.write_bytes(store.path("nscl", 1).read_bytes())
    agree(store, "cl", 1)
    with (
        pytest.raises(
            ValueError, match=r"epoch_0001\.safetensors: not the expected snapshot: expected arm cl, found arm nscl"
        ),
        store.open("cl", 1),
    ):
        pass
    path.unlink()
    with pytest.raises(ValueError, match=r"epoch_0001\.safetensors: .* missing"):
        store.read("cl", 1)
    with pytest.raises(ValueError, match=r"no snapshot of epoch 3 \(epochs: 0 to 10, 4 in all\)"):
        store.read("cl", 3)
    with pytest.raises(ValueError, match=r"no arm 'scl' \(arms: cl, nscl\)"):
        store.read("scl", 3)


def test_cut_removes_later_epochs_only(store: SnapshotStore) -> None:
    """After a resume from epoch 1 the manifest must list neither later epochs nor a partial line."""
    with store.manifest.open("a") as file:
        file.write('{"arm": "c')
    (store.folder / "cl/epoch_0003.safetensors.tmp").write_text("half")
    store.cut(1)
    assert store.epochs("cl") == store.epochs("nscl") == [0, 1]
    assert not list(store.folder.rglob("*.tmp"))
    store.write("cl", 2, TENSORS, step=10, metadata=ABOUT)
    assert store.epochs("cl") == [0, 1, 2]


def test_the_manifest_is_reread_only_after_a_change(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The analysis looks up every snapshot; a run that trains at the same time may add some."""
    other, reads = SnapshotStore(store.folder), []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (reads.append(path.name), read(path))[1])
    for epoch in (0, 1, 2, 10) * 5:
        assert other.entry("cl", epoch).epoch == epoch
    assert reads.count("manifest.jsonl") <= 1
    store.write("cl", 40, TENSORS, step=10, metadata=ABOUT)
    assert other.entry("cl", 40).epoch == 40
    store.cut(1)
    assert other.epochs("cl") == [0, 1]


def test_an_invalid_manifest_line_is_reported(store: SnapshotStore) -> None:
    """The error states the file and the line number."""
    store.manifest.write_text(store.manifest.read_text() + '{"arm": "cl"\n')
    with pytest.raises(ValueError, match=r"manifest\.jsonl line 9"):
        store.entries()


def test_a_half_written_last_manifest_line_is_ignored_and_cut(store: SnapshotStore) -> None:
    """A process killed while it appends must not make the run unreadable."""
    before = store.manifest.read_text()
    store.manifest.write_text(before + '{"arm": "cl", "epo')
    assert store.epochs("cl") == [0, 1, 2, 10]
    store.cut(10)
    assert store.manifest.read_text() == before


def test_thinned_snapshots_keep_the_first_and_the_last() -> None:
    """Epoch 0 is the shared start and the last epoch is the result."""
    assert snapshot_epochs(3, 1, 0) == [0, 1, 2, 3]
    assert snapshot_epochs(25, 10, 3) == [0, 1, 2, 3, 10, 20, 25]


def test_the_digest_depends_on_names_shapes_dtypes_and_bits() -> None:
    """-0.0 equals 0.0 as a number but is another bit pattern."""
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    assert tensors_digest(base) == tensors_digest(dict(reversed(base.items())))
    others = [
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": -torch.zeros(4), "b": torch.ones(2)},
        {"b": torch.zeros(4), "a": torch.ones(2)},
    ]
    assert len({tensors_digest(tensors) for tensors in [base, *others]}) == 5
