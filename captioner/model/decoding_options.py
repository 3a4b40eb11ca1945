"""All options of the search for captions, with their defaults and bounds.

The Python calls, the command lines, the page and the endpoints take them from here. This module
imports neither Keras nor NumPy, so that `--help` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Number

from captioner.bounds import Bounds
from captioner.errors import CaptionerError

# The strategies, and the options that each depends on.
OPTIONS_OF: dict[str, tuple[str, ...]] = {
    "sample": ("temperature", "top_k", "top_p", "seed"),
    "greedy": (),
    "beam": ("beam_width", "length_penalty"),
}
STRATEGIES = tuple(OPTIONS_OF)


class OptionError(CaptionerError, ValueError):
    """An option of captioning has an impossible value. The message names the possible ones."""


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
    "length_penalty": "for beam: higher values favour longer captions",
    "seed": "for samples: the same seed gives the same captions",
}


@dataclass(frozen=True)
class DecodingOptions:
    """The options of a search for captions.

    Raises:
        OptionError: A value is outside its bounds; the message names the option.
    """

    strategy: str = "sample"
    num_captions: int = 3
    temperature: float = 0.5  # for samples: higher values draw improbable words more often
    top_k: int | None = None  # for samples: only the k most probable words can be drawn
    top_p: float | None = None  # for samples: only the fewest words with this probability together
    beam_width: int = 5
    length_penalty: float = 1.0  # for beam: log-probability is divided by length ** length_penalty
    seed: int = 0
    max_words: int = 20
    # For samples: half as many again are drawn, and those that equal another one word for word are
    # left out. It is on in `DEFAULTS`, and off here, so that a search draws as many as it is told.
    distinct: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise OptionError(
                f"strategy is {self.strategy!r}: it must be one of {', '.join(STRATEGIES)}"
            )
        if not isinstance(self.distinct, bool):
            raise OptionError(f"distinct is {self.distinct!r}: it must be True or False")
        for name, bounds in BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, Number) and hasattr(value, "item"):  # one of NumPy's numbers
                value = value.item()
                object.__setattr__(self, name, value)
            if not (bounds.allow(value) or (value is None and name in MAY_BE_NONE)):
                raise OptionError(f"{name} is {value!r}: it must be {bounds}")

    @property
    def rows(self) -> int:
        """How many captions are searched for at once, which may be more than `num_captions`."""
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
        """Whether only some of the words can be drawn."""
        return self.top_k is not None or self.top_p is not None


# The defaults of `Captioner.caption`, the command line, the page and the endpoints.
DEFAULTS = DecodingOptions(distinct=True)


def as_typed(text: str) -> str:
    """An option's name, or a message that begins with it, as the command line has it."""
    name, space, rest = text.partition(" ")
    return f"--{name.replace('_', '-')}{space}{rest}"


def help_of(name: str, default: object = None) -> str:
    """What an option means, with its default (that of `DEFAULTS`), for the help of a program."""
    default = getattr(DEFAULTS, name) if default is None else default
    return f"{MEANINGS[name]} (default: {'all words' if default is None else default})"
