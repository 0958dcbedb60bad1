"""What is asked of a model and what it answers: how tokens are chosen, a request, its answer."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxlingua.config import Config
from jaxlingua.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the next token is chosen; by default it is the most probable one.

    Raises: ConfigError for values out of range, and for settings of which one would have no effect.
    """

    temperature: float = 0.0  # 0: the most probable token; above, tokens are drawn
    top_k: int = 0  # draw from so many most probable tokens; 0: all
    top_p: float = 1.0  # draw from the fewest tokens that have at least this probability together
    beams: int = 1
    length_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, is_allowed, allowed in (
            ("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or a finite number above"),
            ("top_k", self.top_k, self.top_k >= 0, "0, which is all tokens, or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "a number above 0, at most 1"),
            ("beams", self.beams, self.beams >= 1, "1, which is no beam search, or more"),
            ("length_penalty", self.length_penalty, math.isfinite(self.length_penalty), "a finite number"),
        ):
            if not is_allowed:
                raise ConfigError(f"generate.{name}: {value:g} given; it must be {allowed}; change it")
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError(
                f"generate.beams: {self.beams} given with generate.temperature={self.temperature:g}; beam "
                f"search draws no tokens; set one of them to its default (beams=1, temperature=0)"
            )
        if self.temperature == 0 and (self.top_k > 0 or self.top_p < 1):
            name, value = ("top_k", self.top_k) if self.top_k > 0 else ("top_p", self.top_p)
            raise ConfigError(
                f"generate.{name}: {value:g} given with generate.temperature=0, which draws no tokens; it "
                f"needs a temperature above 0; set generate.temperature, or leave generate.{name} out"
            )

    @property
    def signature(self) -> str:
        """All that an answer depends on beside model and request.

        Example:
            >>> Decoding().signature, Decoding(beams=4).signature
            ('greedy', 'beams4,length_penalty1')
            >>> Decoding(temperature=0.7, top_k=40, top_p=0.9, seed=3).signature
            'sample,temperature0.7,top_k40,top_p0.9,seed3'
        """
        if self.beams > 1:
            return f"beams{self.beams},length_penalty{self.length_penalty:g}"
        if self.temperature > 0:
            drawn = f"temperature{self.temperature:g},top_k{self.top_k},top_p{self.top_p:g}"
            return f"sample,{drawn},seed{self.seed}"
        return "greedy"


def decoding_of(config: Config) -> Decoding:
    """How tokens are chosen. Raises: ConfigError for settings of which one has no effect."""
    wanted = config.generate
    return Decoding(
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        beams=wanted.beams,
        length_penalty=wanted.length_penalty,
        seed=config.run.seed,
    )


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """One prompt and what may follow it."""

    prompt: np.ndarray  # int32 ids, BOS included
    max_new_tokens: int
    stop: tuple[str, ...] = ()  # the answer ends before the first of these
    choices: tuple[np.ndarray, ...] = ()  # ids of the only answers allowed, EOS not included
    key: int = 0  # names the random stream: a sample depends on seed, key and number of the token alone


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What a model wrote after a prompt."""

    tokens: np.ndarray  # int32 new ids without EOS; if stopped, up to the one that completes the stop string
    text: str  # of the new ids alone, cut before the stop string, white space kept
    ended_by: Literal["", "eos", "stop", "length", "choice"]  # "" while it is being written
    choice: int | None = None  # index into Request.choices
