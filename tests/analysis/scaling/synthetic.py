"""Scores made from a law that is known."""

import numpy as np

from jaxlingua.analysis.scaling.fit import Points
from jaxlingua.analysis.scaling.laws import Fitted, family

CODES = ("jav_Latn", "tha_Thai", "deu_Latn")


def draw_law(law: str, languages: int, rng: np.random.Generator) -> dict[str, Fitted]:
    """A law that gains some 5 to 15 points over the sizes of `draw_scores`; languages are unlike English to degrees."""
    exponent, middle, width = rng.uniform(0.15, 0.8), rng.uniform(7.6, 10.3), rng.uniform(0.4, 1.2)
    amplitude = rng.uniform(1, 4) if family(law) == "log_linear" else rng.uniform(8, 20)
    of = {}
    for place, code in enumerate(CODES[:languages]):
        own = amplitude * (rng.uniform(0.6, 1.5) if law.endswith("_free") else 1.0)
        level = rng.uniform(0, 20)
        parameters = {
            "power": [level + own, own * 1000**exponent, exponent],
            "log_linear": [level, own],
            "sigmoid": [level, own, np.exp(middle), width],
        }[family(law)]
        similarity = rng.uniform(0.3, 1) if place else 1.0
        of[code] = Fitted(code, law, np.array(parameters), np.array([parameters]), similarity, 1, 1, 0.0)
    return of


def draw_scores(
    of: dict[str, Fitted], sizes: int, seeds: int, noise: float, rng: np.random.Generator
) -> Points:
    """Scores at 1,000 pairs, twice that, and so on, with normal noise."""
    pairs = np.tile(np.repeat(1000 * 2.0 ** np.arange(sizes), seeds), len(of))
    language = np.repeat(np.arange(len(of)), sizes * seeds)
    true = [float(one.at(n)) for one, n in zip(np.array(list(of.values()))[language], pairs, strict=True)]
    similarity = np.array([one.similarity for one in of.values()])
    return Points(tuple(of), similarity, language, pairs, np.array(true) + rng.normal(0, noise, len(pairs)))
