"""Find the checkpoint files of other programs, and the epoch of each."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
Files = dict[str, dict[int, Path]]  # arm -> epoch -> file, epochs ascending


def files_by_epoch(arm: str, pattern: str) -> dict[int, Path]:
    """Return the files of an arm by epoch, ascending. Raise ValueError for no file, no epoch, or an epoch twice."""
    path = Path(pattern).expanduser()
    found = sorted(each for each in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if each.is_file())
    if not found:
        raise ValueError(f"--arm: no file matches '{pattern}' of arm '{arm}'")
    files: dict[int, Path] = {}
    for file in found:
        epoch = epoch_of(file)
        if epoch is None:
            raise ValueError(f"--arm: '{file}' of arm '{arm}' has no epoch in its name; narrow the pattern")
        if epoch in files:
            raise ValueError(
                f"--arm: '{files[epoch]}' and '{file}' of arm '{arm}' both have epoch {epoch}; narrow the pattern"
            )
        files[epoch] = file
    return dict(sorted(files.items()))


def epoch_of(file: Path) -> int | None:
    """Return the number after "epoch" in a file name, or else the last number; None without a number.

    Example:
        >>> [epoch_of(Path(name)) for name in ("snapshot_90.pth", "resnet50_epoch=7-step=99.ckpt", "last.pt")]
        [90, 7, None]
    """
    name = file.name
    while name.endswith(SUFFIXES):
        name = name.rpartition(".")[0]
    numbers = re.findall(r"epochs?[^0-9A-Za-z]*(\d{1,9})", name, flags=re.IGNORECASE) or re.findall(r"\d{1,9}", name)
    return int(numbers[-1]) if numbers else None


def in_order(files: Files) -> Iterator[tuple[int, str, Path]]:
    """Yield epoch, arm and file in the order in which training writes snapshots."""
    for epoch in sorted({epoch for of_arm in files.values() for epoch in of_arm}):
        for arm, of_arm in files.items():
            if epoch in of_arm:
                yield epoch, arm, of_arm[epoch]


def arms_of(words: Sequence[str]) -> dict[str, str]:
    """Return the pattern of each arm. Raise ValueError for a word that is not NAME=GLOB, or an arm named twice."""
    arms: dict[str, str] = {}
    for word in words:
        arm, equals, pattern = word.partition("=")
        if not (equals and pattern and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", arm)):
            raise ValueError(f"--arm: got '{word}'; write it as NAME=GLOB, such as 'cl=exp/dcl/*.pth'")
        if arm in arms:
            raise ValueError(f"--arm: arm '{arm}' occurs twice; use one pattern that matches all its files")
        arms[arm] = pattern
    return arms
