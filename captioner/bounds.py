"""Bounds of numbers: of the sizes of the model, and of the options of training and search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value of a number.

    `visitors` are narrower bounds for the page and the endpoints, because their users share a
    server, and because a slider needs sensible ends.
    """

    low: float
    high: float
    whole: bool = False
    visitors: tuple[float, float] | None = None

    @property
    def for_visitors(self) -> Bounds:
        """The bounds on the page and the endpoints."""
        return self if self.visitors is None else Bounds(*self.visitors, whole=self.whole)

    def allow(self, value: Any) -> bool:
        """Whether `value` is within the bounds, and an `int` if they are for whole numbers."""
        number = isinstance(value, int if self.whole else int | float)
        # NaN is within no bounds.
        return number and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:.12g}"
