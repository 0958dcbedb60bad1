"""A page in the browser: one question for every model, their answers side by side while they are written."""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from html import escape
from importlib import resources
from typing import Any, Literal

import yaml
from babel.dates import format_timedelta

from jaxlingua.generate.address import is_loopback, listen, url_of
from jaxlingua.generate.asking import Asker
from jaxlingua.generate.columns import Answering
from jaxlingua.generate.framing import Question
from jaxlingua.languages import LANGUAGES, cldr_locale, display_name, html_language, is_right_to_left

# From what is in the boxes of each way to ask.
_QUESTIONS: dict[str, Callable[..., Question]] = {
    "translate": lambda source, target, text: Question(text, direction=(source, target)),
    "instruct": lambda instruction, given, language: Question(instruction, given, language=language or ""),
    "go_on": lambda prompt: Question(prompt, is_raw=True),
}
_PAGES = resources.files("jaxlingua.generate") / "pages"
_MOST_EXAMPLES = 8
_MOST_WAITING = 32  # questions in the queue; more are turned away
# Of examples for a model without a run.
_WITHOUT_RUN = (
    "eng_Latn",
    "spa_Latn",
    "zho_Hans",
    "arb_Arab",
    "hin_Deva",
    "swh_Latn",
)  # examples of a model's


def serve(
    askers: Sequence[Asker], *, host: str, port: int | Literal["auto"], say: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C. Nothing that it shows comes from another machine.

    Raises: ConfigError for an address that cannot be listened at; SystemExit(0) at Ctrl-C, where an answer
        that is being written is not waited for (`errors.end_with_code` ends its thread).
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as Gradio is imported
    import uvicorn

    answering = Answering()
    application = application_of(askers, answering)
    listening = listen(host, port)
    if not is_loopback(listening):
        say(f"warning: --host: {host} given; whoever reaches this machine there may use the models")
    say(f"page: {url_of(listening)} (Ctrl-C ends it)")
    # Pages that are open hold a connection each, so the end waits for them only so long.
    config = uvicorn.Config(application, log_level="critical", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # the way to end it
        say("stopped")
        raise SystemExit(0) from None
    finally:
        answering.close()
        listening.close()


def application_of(askers: Sequence[Asker], answering: Answering) -> Any:
    """The page as an ASGI application, of fonts and scripts that are on this machine."""
    import gradio
    from fastapi import FastAPI

    theme = gradio.themes.Base(
        primary_hue=gradio.themes.colors.blue,
        neutral_hue=gradio.themes.colors.slate,
        font=["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="#0072b2",
        button_primary_background_fill_dark="#0072b2",
        button_primary_background_fill_hover="#005a8d",
        button_primary_background_fill_hover_dark="#2b8fd0",
    )
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        _page(askers, answering),
        path="/",
        theme=theme,
        css=(_PAGES / "web.css").read_text("utf-8"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=0,
        i18n=gradio.I18n(en={"common.complete": "Complete"}),
    )


def _page(askers: Sequence[Asker], answering: Answering) -> Any:
    import gradio

    languages = list(dict.fromkeys(code for asker in askers for code in asker.languages()))
    others = sorted(LANGUAGES.keys() - languages, key=display_name)
    choices = [(display_name(code), code) for code in [*languages, *others]]
    phrases = any(source.kind == "cldr" for asker in askers for source in asker.config.data.sources.values())
    names = " · ".join(asker.name for asker in askers)
    first, second, *_ = [*languages, *[code for code in _WITHOUT_RUN if code not in languages]]

    quietly = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def box(label: str, lines: int, **more: Any) -> Any:
        return gradio.Textbox(label=label, lines=lines, max_lines=16, **more)

    def direction_of(language: str) -> Any:
        attributes = gradio.InputHTMLAttributes(lang=html_language(language))
        return gradio.update(rtl=is_right_to_left(language), html_attributes=attributes)

    def choice(label: str, value: str) -> Any:
        return gradio.Dropdown(choices, value=value, label=label, num_choices_shown=None, scale=4)

    def buttons(label: str) -> Any:
        with gradio.Row():
            ask = gradio.Button(label, variant="primary", scale=3, min_width=120)
            stop = gradio.Button("Stop", scale=1, min_width=80)
        stop.click(answering.stop, reader, **quietly)
        return ask

    def asking(question_of: Callable[..., Question]) -> Callable[..., Iterator[list[str]]]:
        """What a button does, from what is in the boxes, the decoding and who reads."""

        def shown(*given: Any) -> Iterator[list[str]]:
            *boxes, longest, temperature, seed, reader = given
            options = {"max_new_tokens": longest, "temperature": temperature, "seed": seed}
            for columns in answering.columns(askers, question_of(*boxes), options, reader):
                yield [part for column in columns for part in (column.answer, column.status, column.prompt)]

        # Gradio streams what it knows for a generator, which a function whose types are checked is not.
        return lambda *given: (yield from shown(*given))

    asked = []  # of each way to ask: its button, the box that asks too, and its boxes
    with gradio.Blocks(title=f"jaxlingua: {names}", analytics_enabled=False) as page:
        reader = gradio.State(lambda: uuid.uuid4().hex)
        gradio.HTML(f"<h1>jaxlingua</h1><p class='quiet'>{escape(names)}</p>", elem_classes=["title"])
        with gradio.Tabs():
            with gradio.Tab("Translate"):
                with gradio.Row(elem_classes=["ways"]):
                    source = choice("From", first)
                    swap = gradio.Button("⇄ Swap", scale=1, min_width=90)
                    target = choice("To", second)
                text = box("Text to translate", 4, rtl=is_right_to_left(first))
                ask = buttons("Translate")
                asked.append((ask, text, "translate", [source, target, text]))
                samples = _translations(languages or _WITHOUT_RUN, are_phrases=phrases)
                labels = [sample[-1] for sample in samples]
                gradio.Examples(samples, [source, target, text], example_labels=labels, label="Examples")
            with gradio.Tab("Instruction"):
                instruction = box("Instruction", 2)
                given = box("Input (may be empty)", 3)
                is_localized = any(asker.framing.wording.frames == "localized" for asker in askers)
                language = gradio.Dropdown(
                    choices,
                    value=first if is_localized else None,
                    label="Language of frame and answer",
                    visible=is_localized,
                )
                ask = buttons("Answer")
                asked.append((ask, instruction, "instruct", [instruction, given, language]))
                samples = _instructions(languages or _WITHOUT_RUN)
                labels = [sample[0] for sample in samples]
                gradio.Examples(samples, [instruction, given], example_labels=labels, label="Examples")
            with gradio.Tab("Raw prompt"):
                prompt = box("Prompt, which the models go on with", 6)
                ask = buttons("Go on")
                asked.append((ask, prompt, "go_on", [prompt]))
        with gradio.Accordion("Decoding", open=False), gradio.Row():
            config = askers[0].config
            decoding = [
                gradio.Number(config.generate.max_new_tokens, label="Longest answer (tokens)", precision=0),
                gradio.Number(config.generate.temperature, label="Temperature (0: most probable)", step=0.1),
                gradio.Number(config.run.seed, label="Seed", precision=0),
            ]
        columns = []
        with gradio.Row(elem_classes=["columns"]):
            for asker in askers:
                with gradio.Column(min_width=300):
                    about = escape(asker.framing.about)
                    gradio.HTML(f"<h2>{escape(asker.name)}</h2><p class='quiet'>{about}</p>")
                    columns.append(gradio.HTML(elem_classes=["answer"], js_on_load=_region(asker.name)))
                    columns.append(gradio.HTML(elem_classes=["status"], js_on_load="element.role = 'status'"))
                    with gradio.Accordion("What the model sees", open=False):
                        columns.append(gradio.HTML(elem_classes=["prompt"], js_on_load=None))
        source.change(direction_of, source, text, **quietly)
        ways = [source, target]
        swap.click(None, ways, ways, js="(source, target) => [target, source]", api_visibility="private")
        for ask, first_box, way, boxes in asked:
            expecting = gradio.on([ask.click, first_box.submit], answering.expect, reader, **quietly)
            expecting.then(
                asking(_QUESTIONS[way]),
                [*boxes, *decoding, reader],
                columns,
                concurrency_limit=1,
                concurrency_id="models",
                show_progress_on=columns[::3],
                api_name=way,
            )
    return page.queue(max_size=_MOST_WAITING)


def _region(name: str) -> str:
    """JavaScript that gives an answer a name for screen readers."""
    return f"element.role = 'region'; element.ariaLabel = {json.dumps(f'Answer of {name}')}"


def _translations(languages: Sequence[str], *, are_phrases: bool) -> list[list[str]]:
    """Source language, target language and text, a text of every language in turn.

    Args:
        are_phrases: of Unicode CLDR, which is all that a model knows that learned from nothing else.
    """
    texts = {
        code: [format_timedelta(timedelta(days=days), add_direction=True, locale=locale) for days in (3, -1)]
        if are_phrases and (locale := cldr_locale(code))
        else _examples()["sentences"].get(code, [])
        for code in languages
    }
    found = []
    for number in range(2):
        for place, code in enumerate(languages):
            others = [
                other for other in (*languages[:1], *languages[place + 1 :], *_WITHOUT_RUN) if other != code
            ]
            found += [[code, others[0], text] for text in texts[code][number : number + 1]]
    return found[:_MOST_EXAMPLES]


def _instructions(languages: Sequence[str]) -> list[list[str]]:
    """Instructions and their inputs, in the languages that there are some in."""
    return [pair for code in languages for pair in _examples()["instructions"].get(code, [])][:_MOST_EXAMPLES]


def _examples() -> dict[str, dict[str, list]]:
    return yaml.safe_load((_PAGES / "examples.yaml").read_text("utf-8"))
