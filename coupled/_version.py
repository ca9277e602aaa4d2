"""The version and the git commit of this code, from git in a checkout or from the metadata of an installed wheel."""

import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path

RELEASE = "0.2.0"
CHANGES, DIRTY, DIGITS = "+changes", ".dirty", 12
HERE = Path(__file__).parent


def version() -> str:
    """Return release and commit: "0.2.0+g1a2b3c4d5e6f", with ".dirty" if the tree differs from the commit.

    If the commit is unknown, as in a copy of the sources without git, return the release alone.
    """
    commit = git_commit()
    if commit is None:
        return RELEASE
    return f"{RELEASE}+g{commit[:DIGITS]}{DIRTY if commit.endswith(CHANGES) else ''}"


def git_commit() -> str | None:
    """Return the git commit of this code, with "+changes" if the tree differs from it; None if it is unknown.

    It has all digits in a checkout, and the first 12 in an installed wheel or a source distribution.
    """
    if (HERE.parent / ".git").exists():
        return _of_checkout()
    installed = next(iter(distributions(name="coupled", path=[str(HERE.parent)])), None)  # beside this package
    if installed is None:
        return None
    digits, _, rest = installed.version.partition("+g")[2].partition(".")
    return digits + (CHANGES if rest else "") if digits else None


def _of_checkout() -> str | None:
    if not shutil.which("git"):
        return None
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=HERE, capture_output=True, text=True)
    return head.stdout.strip() + (CHANGES if changed.stdout.strip() else "") if head.returncode == 0 else None
