"""How captions are searched for: every option, its default and its bounds, written once.

The Python calls, the command lines, the page and the endpoints all read them here. This module
imports neither Keras nor NumPy, so that `--help` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from captioner.errors import CaptionerError

STRATEGIES = ("sample", "greedy", "beam")


class OptionError(CaptionerError, ValueError):
    """An option of captioning that makes no sense; the message names it and says what does."""


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value of a number.

    `visitors` are narrower bounds for the page and the endpoints, where strangers share one server
    and a slider needs sensible ends.
    """

    low: float
    high: float
    whole: bool = False
    visitors: tuple[float, float] | None = None

    @property
    def for_visitors(self) -> Bounds:
        """The bounds that hold on the page and the endpoints."""
        return self if self.visitors is None else Bounds(*self.visitors, whole=self.whole)

    def allow(self, value: Any) -> bool:
        """Whether `value` is a number (or a whole number, in Python's sense of one) within them."""
        number = isinstance(value, int if self.whole else int | float)
        return number and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:.12g}"


BOUNDS = {
    "num_captions": Bounds(1, 100, whole=True, visitors=(1, 10)),
    "temperature": Bounds(0.01, 100, visitors=(0.1, 2)),
    "top_k": Bounds(1, 2**31 - 1, whole=True),
    "top_p": Bounds(1e-6, 1, visitors=(0.05, 1)),
    "beam_width": Bounds(1, 100, whole=True),
    "length_penalty": Bounds(0, 10),
    "seed": Bounds(0, 2**32 - 1, whole=True),
    "max_words": Bounds(1, 100, whole=True),
}
MAY_BE_NONE = ("top_k", "top_p")
# What the options mean, for the command line, the page and the endpoints.
MEANINGS = {
    "num_captions": "how many captions (greedy always gives one)",
    "strategy": "how words are chosen: sample draws them at random by their probability, greedy "
    "takes the most probable one at each step, beam searches for the most probable captions",
    "temperature": "for samples: higher values draw improbable words more often",
    "top_k": "for samples: only this many of the most probable words can be drawn",
    "top_p": "for samples: only the most probable words, up to this probability together, can be "
    "drawn",
    "beam_width": "for beam: how many captions are kept at each step",
    "seed": "for samples: the same seed gives the same captions",
}


@dataclass(frozen=True)
class DecodingOptions:
    """How captions are searched for.

    Raises:
        OptionError: A value is outside its bounds; the message names the option.
    """

    strategy: str = "sample"
    num_captions: int = 3
    temperature: float = 0.5  # sampling: below 1 bolder, above 1 wilder
    top_k: int | None = None  # sampling: from the k most probable words only
    top_p: float | None = None  # sampling: from the fewest words with this much probability
    beam_width: int = 5
    length_penalty: float = 1.0  # beam: log-probability divided by length ** length_penalty
    seed: int = 0
    max_words: int = 20
    # Sampling: half as many again are drawn, and samples that agree word for word are left out.
    # `Captioner.caption` turns it on; here it is off, because a search draws what it is told to.
    distinct: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise OptionError(f"strategy is {self.strategy!r}: one of {', '.join(STRATEGIES)}")
        for name, bounds in BOUNDS.items():
            value = getattr(self, name)
            if not (bounds.allow(value) or (value is None and name in MAY_BE_NONE)):
                raise OptionError(f"{name} is {value!r}: {bounds}")

    @property
    def rows(self) -> int:
        """Captions searched for at once: the beam may be wider than what is asked for."""
        if self.strategy == "greedy":
            return 1
        if self.is_beam:
            return max(self.beam_width, self.num_captions)
        spare = self.distinct and self.num_captions > 1
        return self.num_captions + math.ceil(self.num_captions / 2) * spare

    @property
    def is_beam(self) -> bool:
        return self.strategy == "beam"

    @property
    def filtered(self) -> bool:
        """Whether sampling is limited to some of the words."""
        return self.top_k is not None or self.top_p is not None


DEFAULTS = DecodingOptions(distinct=True)  # of `Captioner.caption`, the page and the endpoints
