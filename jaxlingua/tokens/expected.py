"""What a stage of text that is drawn anew will show, by entry and language, as samples of it tell."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxlingua.tokens.batches import GroupCount
from jaxlingua.tokens.store import Documents, Group


class Sample(NamedTuple):
    """Documents of an entry, and of how many members they are what was not dropped."""

    documents: Documents
    members: int

    @property
    def kept(self) -> float:
        """Share of the members that become a document."""
        return len(self.documents) / self.members

    @property
    def positions(self) -> float:
        """Positions of a row that a member takes on average."""
        return float(self.documents.lengths.sum()) / self.members


def expected_counts(
    samples: Mapping[str, Sample],
    members: Float64[np.ndarray, "entries"],
    sizes: Mapping[str, int],
    group_names: Sequence[Group],
) -> dict[Group, GroupCount]:
    """What is shown of each (entry, language) if the stage has so many members of each entry.

    Args:
        sizes: members that make one pass over each entry.
    """
    shown = {}
    for (entry, sample), count in zip(samples.items(), members.tolist(), strict=True):
        documents, times = sample.documents, count / sample.members

        def total(
            per_document: np.ndarray, documents: Documents = documents, times: float = times
        ) -> list[float]:
            names = len(documents.group_names)
            return (times * np.bincount(documents.groups, per_document, names)).tolist()

        totals = zip(
            documents.group_names,
            total(np.ones(len(documents))),
            total(documents.lengths + 1),
            total(documents.target_tokens),
            strict=True,
        )
        shown |= {group: (*counts, count / sizes[entry]) for group, *counts in totals}
    all_documents, all_targets = (sum(counts[i] for counts in shown.values()) for i in (0, 2))
    return {
        group: GroupCount(
            documents=round(shown[group][0]),
            tokens=round(shown[group][1]),
            target_tokens=round(shown[group][2]),
            share_of_documents=shown[group][0] / all_documents,
            share_of_target_tokens=shown[group][2] / all_targets,
            epochs=shown[group][3],
        )
        for group in group_names
    }
