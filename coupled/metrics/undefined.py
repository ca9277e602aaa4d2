"""An undefined score with its reason."""

from math import nan


class Undefined(float):
    """NaN with the reason why a metric is undefined: `Undefined("constant features")`."""

    reason: str

    def __new__(cls, reason: str) -> "Undefined":
        """Create NaN with `reason`, a few words."""
        self = super().__new__(cls, nan)
        self.reason = reason
        return self
