"""The folder of images of CIFAR-10 that docs/reproduction.md measures."""

import shutil
import sys
from pathlib import Path

import cifar10_subset
import pytest


def interrupted(*_: Path) -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


def test_the_subset_has_as_many_images_for_any_number_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class with too few images is refused, with its name, before anything is copied."""
    monkeypatch.setattr(cifar10_subset, "TRAIN", 20)
    monkeypatch.setattr(cifar10_subset, "TEST", 3)
    for place in range(10):
        for split, count in (("train", 11), ("test", 3)):
            folder = tmp_path / "all" / split / f"class{place}"
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:04d}.jpg").touch()

    def run(name: str, *options: str) -> int:
        output = tmp_path / name
        monkeypatch.setattr(sys, "argv", ["subset", str(tmp_path / "all"), "--output", str(output), *options])
        return cifar10_subset.main()

    assert [run("ten"), run("two", "--classes", "2")] == [0, 0]
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/ten: 50 images", f"{tmp_path}/two: 26 images"]
    assert len([*(tmp_path / "ten/train").rglob("*.jpg")]) == len([*(tmp_path / "two/train").rglob("*.jpg")]) == 20
    assert sorted(path.name for path in (tmp_path / "two/test").iterdir()) == ["class0", "class1"]
    assert not (tmp_path / "two/train/class0/0010.jpg").exists()
    with monkeypatch.context() as patch:
        patch.setattr(cifar10_subset.shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("other")
    assert not (tmp_path / "other").exists(), "a part of the images"
    assert run("other") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "other", "ten", "two"]
    capsys.readouterr()
    (tmp_path / "all/test/class9/0000.jpg").unlink()
    shutil.rmtree(tmp_path / "other")
    assert run("other") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "test/class9 has 2 images; 3 are needed" in line
    assert not (tmp_path / "other").exists()
