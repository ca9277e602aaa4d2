"""The demo's claim: for each of three seeds NSCL ends closer to CL than SCL and CE do; all pages agree."""

import re

import pytest
from support import tiny

HEADER = (tiny.REPOSITORY / "configs/demo.yaml").read_text(encoding="utf-8")


def test_nscl_is_closest_to_cl_for_every_measured_seed() -> None:
    """A change of the config requires the three runs again."""
    rows = re.findall(r"seed (\d): +CKA (\S+) (\S+) (\S+) +RSA (\S+) (\S+) (\S+)", HEADER)
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for _, *values in rows:
        nscl, scl, ce, nscl_rsa, scl_rsa, ce_rsa = map(float, values)
        assert nscl > max(scl, ce)
        assert nscl_rsa > max(scl_rsa, ce_rsa)


@pytest.mark.parametrize("page", ["README.md", "docs/reproduction.md"])
def test_the_header_and_the_pages_give_the_same_numbers(page: str) -> None:
    """If two copies of a measured number differ, one is wrong."""
    text = (tiny.REPOSITORY / page).read_text(encoding="utf-8")
    for arm in ("nscl", "scl", "ce"):
        header = re.search(rf"#   {arm} +(.*)", HEADER)
        row = re.search(rf"\| `{arm}` \| (.*) \|", text)
        assert header
        assert row
        assert re.findall(r"\.\d+", header.group(1)) == re.findall(r"\.\d+", row.group(1))
