"""What frames a run learns: whether any, and in which language the one is that instructions have."""

from jaxlingua.config import Config, source_languages


def learns_prompts(config: Config) -> bool:
    """Whether anything but plain text is learned, so that a frame around a question means something."""
    entries = [(name, entry) for stage in config.stages for name, entry in stage.mixture.items()]
    kinds = [
        (config.data.sources[name if entry.source == "auto" else entry.source], entry.task)
        for name, entry in entries
    ]
    return any(
        task != "text" and source.kind != "text" and getattr(source, "yields", "") != "text"
        for source, task in kinds
    )


def frame_language(config: Config) -> str:
    """Language of the frame that a chat template has: English where that was learned, else the first."""
    if config.data.frames == "english":
        return "eng_Latn"
    answers: list[str] = []
    for stage in config.stages:
        for name, entry in stage.mixture.items():
            source = config.data.sources[name if entry.source == "auto" else entry.source]
            directions = entry.directions()
            answers += [wanted for _, wanted in directions] if directions else source_languages(source)
    return "eng_Latn" if "eng_Latn" in answers or not answers else answers[0]
