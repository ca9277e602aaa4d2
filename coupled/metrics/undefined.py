"""A score that has no value, and why."""

from math import nan


class Undefined(float):
    """NaN that carries the reason for which a metric has no value: `Undefined("constant features")`."""

    reason: str

    def __new__(cls, reason: str) -> "Undefined":
        """NaN with `reason`, a few words."""
        self = super().__new__(cls, nan)
        self.reason = reason
        return self
