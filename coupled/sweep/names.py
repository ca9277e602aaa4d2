"""Names of a sweep's folder, of its points' folders and of their runs."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST_NAME = 180  # file systems allow 255 bytes


def order(key: str) -> tuple[bool, str]:
    """Sort key: alphabetical, the seed last."""
    return key == "seed", key


def point_name(values: Mapping[str, Any]) -> str:
    """Return the folder of a point, such as "temperature=0.1,seed=3"; no character needs quoting in a shell."""
    name = ",".join(f"{key}={spelled(values[key])}" for key in sorted(values, key=order))
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_digest(name)}"


def keys_name(keys: Iterable[str]) -> str:
    """Return the folder of a sweep over these keys, such as "batch.size,temperature"; "" if only seeds are swept."""
    name = ",".join(sorted(set(keys) - {"seed"}))
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_digest(name)}"


def run_name(name: str) -> str:
    """Return the `name` of a point's run, made of letters, digits, - and _, such as temperature-0_1_seed-3."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "_", name.replace("=", "-"))
    return plain if len(plain) <= 64 else f"{plain[:55]}-{_digest(name)}"


def spelled(value: Any) -> str:
    """Return a value as text for a folder's name: equal numbers give equal text, lists are joined by +."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]+", value):
        return value
    if isinstance(value, list) and value and all(isinstance(each, int | float | str) for each in value):
        return "+".join(map(spelled, value))
    text = json.dumps(value, default=str, sort_keys=True)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:40].strip("_") + "-" + _digest(text)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
