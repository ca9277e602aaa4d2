"""Adding an objective or dataset means adding a file; an unknown name lists the known ones."""

import pytest

from coupled.config import by_name


def test_files_are_found_by_name_and_private_ones_are_not() -> None:
    """A leading underscore hides a file that is not an objective."""
    names = by_name.known("coupled.objectives")
    assert {"cross_entropy", "dcl", "nscl", "nt_xent", "supcon"} <= set(names)
    assert not [name for name in names if name.startswith("_")]
    assert by_name.find("coupled.objectives", "nscl").__name__ == "coupled.objectives.nscl"


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    """Names that would lead outside the package are unknown names as well."""
    with pytest.raises(ValueError, match=r"unknown dataset 'digit'; did you mean 'digits'\? \(known: .*folder"):
        by_name.find("coupled.datasets", "digit")
    with pytest.raises(ValueError, match=r"unknown objective '\.\._anchors'"):
        by_name.find("coupled.objectives", ".._anchors")
