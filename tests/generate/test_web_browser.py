"""The page in a real browser, with a real model: `pytest -m slow`, where Chromium and Playwright are installed.

`pip install playwright` is enough: the browser is the system's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.flow.small import train, write_config

try:
    from playwright import sync_api
except ModuleNotFoundError:
    sync_api = None
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sync_api is None, reason="pip install playwright, which drives the browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
DATA = {
    "template": "short",
    "sources": {"phrases": {"kind": "cldr", "languages": ["eng_Latn", "arb_Arab", "heb_Hebr"], "records": 400}},
}  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """Where a run and its base are served; in the end Ctrl-C is one line and no error."""
    folder = tmp_path_factory.mktemp("web")
    stages = [{"name": "coit", "mixture": {"phrases": {}}, "steps": 2}]
    train(write_config(folder / "run.yaml", data=DATA, stages=stages, eval={"tasks": []}))
    command = [sys.executable, "-m", "jaxlingua.generate", str(folder / "run"), "--beside", "base", "--web"]
    place = {"cwd": Path(__file__).parents[2], "env": {**os.environ, "JAX_PLATFORMS": "cpu"}}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, process_group=0, **place) as serving:
        lines = []
        for line in serving.stderr:
            lines.append(line)
            if line.startswith("page: "):
                break
        assert lines[-1].startswith("page: "), "".join(lines)
        yield re.search(r"http://\S+", lines[-1])[0]
        serving.send_signal(signal.SIGINT)
        left = serving.communicate(timeout=120)[1]
    assert serving.returncode == 0
    assert left == "stopped\n"


@pytest.fixture
def opened(url) -> Iterator[tuple["sync_api.Page", set[str]]]:
    """The page as a phone shows it, and the machines that it asked for something."""
    hosts: set[str] = set()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 380, "height": 800})
        page.set_default_timeout(120_000)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(url)
        yield page, hosts
        browser.close()


def is_answered(page: "sync_api.Page") -> None:
    for place in (0, 1):
        status = page.locator(".block.status").nth(place)
        sync_api.expect(status).to_contain_text("first after", timeout=120_000)


def test_a_translation_is_shown_from_right_to_left_on_a_phone_without_any_other_machine(opened, url):
    page, hosts = opened
    box = page.get_by_label("Text to translate")
    sync_api.expect(box).to_have_attribute("dir", "ltr")
    page.get_by_role("button", name="בעוד").click()
    sync_api.expect(box).to_have_value(re.compile("בעוד"))
    sync_api.expect(box).to_have_attribute("dir", "rtl")
    page.get_by_role("button", name="Swap").click()
    sync_api.expect(page.get_by_label("To", exact=True)).to_have_value("Hebrew")
    sync_api.expect(box).to_have_attribute("dir", "ltr")
    box.fill("in 3 days")
    page.get_by_role("button", name="Translate", exact=True).click()
    is_answered(page)
    assert page.locator(".block.answer .text[lang=he]").count() == 2
    page.get_by_role("button", name="What the model sees").first.click()
    sync_api.expect(page.locator(".block.prompt").first).to_have_text(
        re.compile("English to Hebrew\nin 3 days")
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert hosts == {urlsplit(url).netloc}


def test_an_instruction_is_answered_by_keyboard_and_a_wrong_option_is_told(opened):
    page, _ = opened
    page.get_by_role("tab", name="Instruction").click()
    page.get_by_label("Instruction", exact=True).fill("Write in full: <b>{{value}} ${1+1}</b>")
    page.get_by_label("Instruction", exact=True).press("Shift+Enter")
    is_answered(page)
    page.get_by_role("button", name="What the model sees").first.click()
    prompt = page.locator(".block.prompt").first
    sync_api.expect(prompt).to_contain_text("Write in full: <b>{{value}} ${1+1}</b>")
    page.get_by_role("button", name="Decoding").click()
    page.get_by_label("Longest answer").fill("100000")
    page.get_by_role("button", name="Answer", exact=True).click()
    alert = page.locator(".block.status [role=alert]").first
    sync_api.expect(alert).to_contain_text("generate.max_new_tokens: 100000 given", timeout=120_000)
