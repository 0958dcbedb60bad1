"""One line of what the doctor finds."""

from dataclasses import dataclass

from jaxlingua.errors import JaxlinguaError, one_line

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line. `level` is "ok", "note" (a run could start all the same) or "problem".

    `is_config` tells of a problem that the configuration or the data is wrong, not the machine; `is_end` that
    what a run does after it was not looked at.
    """

    level: str
    what: str
    told: str
    remedy: str = ""
    is_config: bool = False
    is_end: bool = False

    def line(self) -> str:
        """As it is printed."""
        return f"{self.level:8}{self.what:16}{self.told}" + (f"; {self.remedy}" if self.remedy else "")


def refused(what: str, error: JaxlinguaError) -> Finding:
    """The very line that a run would end with, and whether it would end with exit code 2."""
    line, is_config = one_line(error), error.exit_code == 2
    told, semicolon, remedy = line.rpartition("; ")
    return Finding("problem", what, *((told, remedy) if semicolon else (line, "")), is_config=is_config)


def size(count: float) -> str:
    """Of memory or files.

    >>> size(2**30 * 15.75), size(2_657_792), size(4_000), size(46)
    ('15.75 GiB', '2.5 MiB', '3.9 KiB', '46 bytes')
    """
    if count >= GIB:
        return f"{count / GIB:,.2f} GiB"
    if count >= 2**20:
        return f"{count / 2**20:,.1f} MiB"
    return f"{count / 2**10:,.1f} KiB" if count >= 2**10 else f"{count:,.0f} bytes"
