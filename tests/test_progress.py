"""How far something is, and how long it takes yet."""

from jaxlingua import progress


def test_a_compilation_before_the_first_answer_is_not_in_the_estimate(monkeypatch):
    """Batches of 64: the first one after 90 s, further ones every 10 s."""
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    said: list[str] = []
    with progress.told(said.append, "answering") as on_progress:
        on_progress(0, 640)
        for batch in range(3):
            now = 90.0 + 10 * batch
            for row in range(64):
                on_progress(64 * batch + row + 1, 640)
    assert said == [
        "answering: 1 of 640",
        "answering: 65 of 640, 1 min 30 s left",
        "answering: 129 of 640, 1 min 20 s left",
        "answering: 1 min 50 s",
    ]
