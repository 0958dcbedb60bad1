"""What is told while something takes long; needs neither JAX nor a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def told(say: Callable[[str], None], what: str) -> Iterator[Callable[[int, int], None]]:
    """Say now and then how far `what` is and how long it takes, and at the end how long it took.

    Gives the function to call with (done, total). The first line has no estimate, since the time before it is
    often that of a compilation; later ones go by the pace since then.
    """
    start = last = time.perf_counter()
    paced: tuple[float, int] | None = None  # when the first line was said, and how much was done

    def progress(done: int, total: int) -> None:
        nonlocal last, paced
        now = time.perf_counter()
        if done and done < total and now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = ""
            if paced is None:
                paced = now, done
            elif done > paced[1]:
                left = f", {duration((now - paced[0]) / (done - paced[1]) * (total - done))} left"
            say(f"{what}: {done:,} of {total:,}{left}")

    yield progress
    say(f"{what}: {duration(time.perf_counter() - start)}")


def duration(seconds: float | int | None) -> str:
    """Seconds as people say them.

    >>> [duration(seconds) for seconds in (None, 7.6, 192, 7500, 90000)]
    ['?', '8 s', '3 min 12 s', '2 h 05 min', '1 d 1 h']
    """
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
