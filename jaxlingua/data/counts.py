"""How many examples there could have been, and why some are not there."""

from dataclasses import dataclass, field

LEAKING = "equals evaluation text"  # the reason where data.leaks=drop leaves a record out


@dataclass(slots=True)
class Count:
    """Examples of one entry in one language: how many there could have been, and what became of them."""

    examples: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, dropped: str) -> None:
        """Count one example that is kept, or dropped if a reason is given."""
        self.examples += 1
        if dropped:
            self.dropped[dropped] = self.dropped.get(dropped, 0) + 1
        else:
            self.kept += 1
