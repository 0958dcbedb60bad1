"""The laws, what one says of a language once it is fitted, and the file that holds them: laws.json.

Every law has the form `level + amplitude · basis(log(g·n))` for n pairs and a similarity g:

    power       c − a·(g·n)^(−b)                          saturates at c
    log_linear  u + v·log(g·n)                            has no bound
    sigmoid     start + height/(1 + (halfway/(g·n))^(1/width))

The level (c, u, start) is the language's own. What else there is, all languages share; in the laws whose name
ends with `_free` the amplitude (a, v, height) is the language's own too. The sign of the amplitude is free:
where a lower score is better, or where more pairs make a score worse, it is the other way round.

Paper: x-LLaMA, arXiv:2308.04948, ties translation quality to the number of pairs and to the similarity of the
language to English, in its equation 2. Neither that formula nor its constants could be read; these laws, the
way they are fitted and the choice among them are our own.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from jaxlingua.errors import DataError

VERSION = 1  # of laws.json
FORMULAS = {
    "power": "c − a·(g·n)^(−b)",
    "log_linear": "u + v·log(g·n)",
    "sigmoid": "start + height/(1 + (halfway/(g·n))^(1/width))",
}
PARAMETERS = {
    "power": ("c", "a", "b"),
    "log_linear": ("u", "v"),
    "sigmoid": ("start", "height", "halfway", "width"),
}
LAWS = tuple(name + ending for name in FORMULAS for ending in ("", "_free"))


def family(law: str) -> str:
    """The law's formula, whatever is shared: "power" of "power_free"."""
    return law.removesuffix("_free")


@dataclass(frozen=True)
class Fitted:
    """The law of one language.

    Attributes:
        parameters: those of `PARAMETERS`, in that order.
        draws: [draws, parameters], of the bootstrap.
        similarity: g, which multiplies pairs; 1 where none was measured.
        smallest_pairs, largest_pairs: of the scores that it was fitted to; beyond is extrapolation.
        residual_sd: how far a single score lies from the law, of all languages together.
        freedom: degrees of freedom of residual_sd.
    """

    language: str
    law: str
    parameters: np.ndarray
    draws: np.ndarray
    similarity: float
    smallest_pairs: int
    largest_pairs: int
    residual_sd: float
    freedom: int = 1

    def at(self, pairs: Any) -> np.ndarray:
        """The score at `pairs`, of the same shape.

        Only the sigmoid has a value at 0 pairs. Raises: ValueError for 0 with another law, or for what is no
        number of pairs.
        """
        return _score(self.law, self.parameters, self._log_effective(pairs))

    def draws_at(self, pairs: Any) -> np.ndarray:
        """What each draw of the bootstrap says: [draws, *pairs.shape]. Raises: as `at`."""
        log_effective = self._log_effective(pairs)
        draws = self.draws.reshape(len(self.draws), *[1] * log_effective.ndim, -1)
        return _score(self.law, draws, log_effective)

    def slope(self, pairs: Any) -> np.ndarray:
        """What one more pair adds to the score, d score / d pairs, of the same shape. Raises: as `at`."""
        pairs = np.asarray(pairs, float)
        log_effective = self._log_effective(pairs)
        kind, amplitude = family(self.law), self.parameters[1]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if kind == "log_linear":
                return amplitude / pairs
            if kind == "power":
                b = self.parameters[2]
                return amplitude * b * np.exp(-b * log_effective) / pairs
            halfway, width = self.parameters[2:]
            steps = (log_effective - np.log(halfway)) / width
            rising = expit(steps) * expit(-steps) / (width * pairs)
            first = 0.0 if width < 1 else np.inf if width > 1 else self.similarity / halfway
            return amplitude * np.where(pairs > 0, rising, first)

    @property
    def bound(self) -> float:
        """The score at infinitely many pairs; infinite for the log-linear law, −inf where that one falls."""
        return float(bound_of(self.law, self.parameters))

    def pairs_for(self, score: float) -> float:
        """The number of pairs at which the law comes to the score; inf where it never does.

        0 where it is beyond the score without any pair.
        """
        return float(_effective_for(self.law, self.parameters, score) / self.similarity)

    def draws_pairs_for(self, score: float) -> np.ndarray:
        """The same for each draw of the bootstrap: [draws]."""
        return _effective_for(self.law, self.draws, score) / self.similarity

    def _log_effective(self, pairs: Any) -> np.ndarray:
        pairs = np.asarray(pairs, float)
        if np.isnan(pairs).any() or (pairs < 0).any():
            raise ValueError(f"{self.language}: {pairs} pairs given; numbers from 0 on are allowed")
        if family(self.law) != "sigmoid" and (pairs == 0).any():
            raise ValueError(
                f"{self.language}: 0 pairs given, where {self.law} has no value; 1 or more are allowed"
            )
        with np.errstate(divide="ignore"):
            return np.log(pairs * self.similarity)


def _score(law: str, parameters: np.ndarray, log_effective: np.ndarray) -> np.ndarray:
    """The score of parameters [..., parameters] at log(g·n) [...]."""
    level, amplitude = parameters[..., 0], parameters[..., 1]
    if family(law) == "log_linear":
        return level + amplitude * log_effective
    if family(law) == "power":
        return level - amplitude * np.exp(-parameters[..., 2] * log_effective)
    return level + amplitude * expit((log_effective - np.log(parameters[..., 2])) / parameters[..., 3])


def bound_of(law: str, parameters: np.ndarray) -> np.ndarray:
    """The score at infinitely many pairs, of parameters [..., parameters]."""
    level, amplitude = parameters[..., 0], parameters[..., 1]
    if family(law) == "log_linear":
        return np.where(amplitude == 0, level, np.copysign(np.inf, amplitude))
    return level + amplitude if family(law) == "sigmoid" else np.asarray(level)


def _effective_for(law: str, parameters: np.ndarray, score: float) -> np.ndarray:
    """g·n at which parameters [..., parameters] come to the score."""
    level, amplitude = parameters[..., 0], parameters[..., 1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if family(law) == "log_linear":
            found = np.exp((score - level) / amplitude)
        elif family(law) == "power":
            left = (level - score) / amplitude
            found = np.where(left > 0, np.maximum(left, 0.0) ** (-1 / parameters[..., 2]), np.inf)
        else:
            share = np.clip((score - level) / amplitude, 0.0, 1.0)
            found = parameters[..., 2] * (share / (1 - share)) ** parameters[..., 3]
    return np.where(amplitude == 0, np.inf, found)


@dataclass(frozen=True)
class Laws:
    """The laws of all languages for one metric of one task."""

    metric: str
    task: str
    is_higher_better: bool | None  # None where neither is better
    of: dict[str, Fitted]
    warnings: tuple[str, ...] = ()  # why they are not to be trusted


# ── laws.json ─────────────────────────────────────────────────────────────────────────────────────────────


def write_laws(
    path: Path | str,
    laws: Laws,
    compared: list[dict[str, Any]] = [],  # noqa: B006 — never changed
    lack_of_fit: dict[str, Any] | None = None,
) -> None:
    """laws.json, whole or not at all.

    Args:
        compared: what was told of the laws among which this one was chosen.
        lack_of_fit: of this one; None where it could not be tested.
    """
    languages = {}
    for code, one in laws.of.items():
        told = asdict(one)
        told["parameters"] = dict(zip(PARAMETERS[family(one.law)], one.parameters.tolist(), strict=True))
        told["draws"] = [[float(f"{value:.9g}") for value in draw] for draw in one.draws.tolist()]
        languages[code] = {key: value for key, value in told.items() if key != "language"}
    content = {
        "version": VERSION,
        "metric": laws.metric,
        "task": laws.task,
        "is_higher_better": laws.is_higher_better,
        "chosen": next(iter(laws.of.values())).law,
        "warnings": list(laws.warnings),
        "lack_of_fit": lack_of_fit,
        "languages": languages,
        "compared": compared,
    }
    path = Path(path)
    temporary = path.with_suffix(f"{path.suffix}.tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)


def read_laws(path: Path | str) -> Laws:
    """What `write_laws` wrote.

    Raises: DataError for a file that is missing, damaged or of another version.
    """
    mend = "laws.json of jaxlingua.analysis scaling is allowed; write it with --output"
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {mend}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); {mend}") from None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise DataError(f"{path}: version '{version}' given; version {VERSION} is allowed; {mend}")
    try:
        of = {code: _read_one(code, told) for code, told in content["languages"].items()}
        if content["is_higher_better"] not in (True, False, None):
            raise ValueError(f"is_higher_better '{content['is_higher_better']}'")
        warnings = tuple(content.get("warnings", ()))  # which laws written before had none
        if not all(isinstance(one, str) for one in warnings):
            raise ValueError("warnings that are no text")
        laws = Laws(content["metric"], content["task"], content["is_higher_better"], of, warnings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}); {mend}") from None
    if not of:
        raise DataError(f"{path}: no language in it; {mend}")
    return laws


def _read_one(code: str, told: Mapping[str, Any]) -> Fitted:
    """Raises: ValueError, KeyError or TypeError for what no fit writes."""
    law = told["law"]
    if law not in LAWS:
        raise ValueError(f"{code}: law '{law}' is unknown")
    names = PARAMETERS[family(law)]
    parameters = np.array([told["parameters"][name] for name in names], float)
    draws = np.array(told["draws"], float).reshape(-1, len(names))
    sizes = (int(told["smallest_pairs"]), int(told["largest_pairs"]))
    similarity, residual_sd = float(told["similarity"]), float(told["residual_sd"])
    if not (np.isfinite(parameters).all() and np.isfinite(draws).all() and len(draws)):
        raise ValueError(f"{code}: parameters or draws that are no numbers, or none")
    if not (similarity > 0 and math.isfinite(similarity) and residual_sd >= 0 and 0 < sizes[0] <= sizes[1]):
        raise ValueError(f"{code}: similarity, residual_sd or sizes out of range")
    return Fitted(code, law, parameters, draws, similarity, *sizes, residual_sd, int(told["freedom"]))
