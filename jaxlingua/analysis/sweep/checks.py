"""What is checked of all runs of a sweep before the first one: that there are the pairs, and the base."""

from collections.abc import Sequence

from jaxlingua.analysis.sweep.cells import Cell
from jaxlingua.data.mixtures import training_records
from jaxlingua.tokens.stages import open_sources, used_sources


def refuse_missing_pairs(cells: Sequence[Cell]) -> None:
    """Choose the most pairs of each language, as its largest run does.

    Raises: DataError naming the entry that has fewer, and how many there are.
    Cost: the sources of the last stage are read once.
    """
    largest = {cell.language: cell for cell in sorted(cells, key=lambda cell: cell.pairs)}
    sources = {}
    for cell in largest.values():
        last = cell.config.stages[-1:]
        asked = cell.config.eval.model_copy(update={"tasks": []})
        needed = cell.config.model_copy(update={"stages": last, "eval": asked})
        if not set(used_sources(needed)) <= sources.keys():
            sources |= open_sources(needed)
        training_records(last, sources)


def refuse_other_base(cells: Sequence[Cell]) -> None:
    """Look at the run that all branch from, as the first run of each seed does.

    Raises: ConfigError where it is none, or cannot go on with that configuration and seed.
    """
    from jaxlingua.train.run_folder import checked_branch

    for cell in {cell.seed: cell for cell in reversed(cells)}.values():
        checked_branch(cell.config, print)
