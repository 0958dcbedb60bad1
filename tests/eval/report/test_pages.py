"""The pages of a rich made-up run: every number is that of scores.json, every mark is earned, no text is markup."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev

import pytest
from markdown_it import MarkdownIt

from jaxlingua.eval.report import write_report
from tests.eval.report.rich_run import EVALUATIONS, HOSTILE, LANGUAGES, SENTENCES, write_rich_run

FEW = ("eng_Latn", "deu_Latn", "arb_Arab", "heb_Hebr", "urd_Arab", "jav_Latn", "sun_Latn")
NEWEST = ("more", 2000)


class Page(HTMLParser):
    """Tables as rows of (classes, title, text); texts with their direction; what is asked from outside."""

    def __init__(self, text: str):
        super().__init__()
        self.tables, self.texts, self.outside, self.scripts = [], [], [], 0
        self._cell, self._text = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.outside += [
            told[name] for name in ("src", "href", "xlink:href") if told.get(name, "#")[0] != "#"
        ]
        self.scripts += tag == "script" or any(name.startswith("on") for name in told)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = {"class": told.get("class", ""), "title": told.get("title", ""), "text": ""}
            self.tables[-1][-1].append(self._cell)
        elif tag == "div" and "text" in told.get("class", "").split():
            self._text = {"dir": told["dir"], "lang": told.get("lang"), "text": ""}
            self.texts.append(self._text)

    def handle_endtag(self, tag):
        self._cell = None if tag in ("td", "th") else self._cell
        self._text = None if tag == "div" else self._text

    def handle_data(self, data):
        for one in (self._cell, self._text):
            if one is not None:
                one["text"] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = write_rich_run(tmp_path_factory.mktemp("rich") / "rich_run", languages=FEW)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def newest(run) -> list[dict]:
    return json.loads((run / "evals" / "more-2000" / "scores.json").read_text("utf-8"))["scores"]


def holm_by_hand(scores) -> dict[int, float]:
    """Index → adjusted p, straight from the definition: the largest of (m − j) p over all smaller p."""
    ranked = sorted((score["p_value"], place) for place, score in enumerate(scores))
    steps = [min(1.0, (len(ranked) - rank) * p) for rank, (p, _) in enumerate(ranked)]
    return {place: max(steps[: rank + 1]) for rank, (_, place) in enumerate(ranked)}


def cell_of(page: Page, task: str) -> dict:
    """The cell of the first heat map that tells of a task."""
    (found,) = [cell for row in page.tables[0] for cell in row if cell["title"].startswith(f"{task}, ")]
    return found


PRIMARY = {"qa": "f1", "translation": "chrf++", "choice": "accuracy", "number": "exact_number"}


# ── the heat map ──────────────────────────────────────────────────────────────────────────────────────────


def test_each_cell_is_the_mean_over_prompts_with_its_spread_difference_and_mark(page, newest):
    shown = [score for score in newest if PRIMARY[score["kind"]] == score["metric"]]
    tested = [score for score in shown if score["p_value"] is not None]
    adjusted = holm_by_hand(tested)
    marks = {id(score): adjusted[place] < 0.05 for place, score in enumerate(tested)}
    tasks = {}
    for score in shown:
        tasks.setdefault(score["task"], []).append(score)
    stars = 0
    for task, scores in tasks.items():
        text = cell_of(page, task)["text"]
        assert text.startswith(f"{mean(one['value'] for one in scores):.1f}"), task
        if len(scores) > 1:
            assert f"±\u202f{stdev(one['value'] for one in scores):.1f}" in text
        if all(score["delta"] is not None for score in scores):
            delta = mean(score["delta"] for score in scores)
            assert f"{abs(delta):.1f}" in text
            assert ("−" in text) == (delta <= -0.05)
            count = sum(marks[id(score)] for score in scores)
            assert ("*" in text) == (count > 0), task
            assert text.endswith("*") == (count == len(scores)), task
            stars += count > 0
    assert 0 < stars < len(tasks)
    assert len([cell for row in page.tables[0] for cell in row if cell["title"]]) == len(tasks)


def test_the_color_is_that_of_the_difference(page, newest):
    up = next(score for score in newest if score["task"] == "xquad.arb_Arab" and score["metric"] == "f1")
    assert up["delta"] > 0
    assert cell_of(page, "xquad.arb_Arab")["class"] == "gain"
    down = [
        one
        for one in newest
        if one["delta"] and one["delta"] < -0.1 and one["metric"] in ("f1", "chrf++", "exact_number")
    ]
    assert cell_of(page, down[0]["task"])["class"] == "loss"


def test_a_score_with_another_signature_has_a_mark_and_a_reason_and_no_difference(page, run):
    cell = cell_of(page, "mlqa.deu_Latn")
    assert cell["class"] == "differs"
    assert cell["text"].endswith("≠ not comparable")
    assert "items: '50of1190' and '1000of1190'" in cell["title"]
    assert "base" not in cell["text"]
    assert "items: '50of1190' and '1000of1190'" in (run / "report.md").read_text("utf-8")
    (one,) = [
        one
        for one in json.loads((run / "report.json").read_text("utf-8"))["comparisons"]
        if (one["task"], one["metric"], one["model"]) == ("mlqa.deu_Latn", "f1", "more, step 2,000")
    ]
    assert (one["delta"], one["p_holm"], one["reason"]) == (None, None, "items: '50of1190' and '1000of1190'")


def test_hovering_tells_interval_p_value_and_p_value_after_holm(page, newest):
    (score,) = [one for one in newest if (one["task"], one["metric"]) == ("xquad.arb_Arab", "f1")]
    title = cell_of(page, "xquad.arb_Arab")["title"]
    assert f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}], 1,000 items" in title
    assert re.search(r"p < 0\.001, after Holm 0\.0\d\d$", title)


def test_too_few_samples_for_so_many_tests_are_told(tmp_path):
    folder = write_rich_run(
        tmp_path / "run", languages=FEW[:3], kinds={"xquad": "qa", "flores": "translation"}
    )
    for file in folder.glob("evals/*/scores.json"):
        content = json.loads(file.read_text().replace("bootstrap20000", "bootstrap100"))
        for score in content["scores"]:
            if score.get("p_value") is not None:
                score["p_value"] = max(score["p_value"], 1 / 101)
        file.write_text(json.dumps(content))
    report = write_report(folder)
    tests = max(one["tests"] for one in report["comparisons"])
    assert report["samples_needed"] == 20 * tests > 101
    assert f"eval.bootstrap_samples={20 * tests}" in (folder / "report.html").read_text("utf-8")


def test_p_values_of_exact_tests_ask_for_no_samples(tmp_path):
    """With three items that differ no p-value is below 0.25, whatever the samples."""
    folder = write_rich_run(
        tmp_path / "run", languages=FEW[:3], kinds={"xquad": "qa", "flores": "translation"}
    )
    for file in folder.glob("evals/*/scores.json"):
        content = json.loads(file.read_text().replace("bootstrap20000", "bootstrap100"))
        for score in content["scores"]:
            score["p_value"] = None if score.get("p_value") is None else 0.25
        file.write_text(json.dumps(content))
    assert write_report(folder)["samples_needed"] == 0


def test_translations_stand_in_the_row_of_the_language_that_is_not_in_all_of_them(page, newest):
    rows = {row[0]["text"]: row for row in page.tables[0] if row and row[0]["text"].startswith("Arabic")}
    heads = [cell["text"] for cell in page.tables[0][0]]
    (arabic,) = rows.values()
    for head, task in (
        ("flores eng_Latn → …", "eng_Latn-arb_Arab"),
        ("flores … → eng_Latn", "arb_Arab-eng_Latn"),
    ):
        (score,) = [one for one in newest if (one["task"], one["metric"]) == (f"flores.{task}", "chrf++")]
        assert arabic[heads.index(f"{head}chrf++")]["text"].startswith(f"{score['value']:.1f}")


# ── groups ────────────────────────────────────────────────────────────────────────────────────────────────


def test_languages_that_a_stage_learned_are_seen_and_the_others_unseen(run):
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert set(report["groups"]["seen"]) == {"eng_Latn", "deu_Latn", "arb_Arab", "heb_Hebr", "jav_Latn"}
    assert set(report["groups"]["unseen"]) == {"urd_Arab", "sun_Latn"}


def test_groups_of_the_configuration_are_used_and_their_means_are_those_of_the_cells(tmp_path):
    groups = {"seen": ["arb_Arab"], "related": ["heb_Hebr", "urd_Arab"], "unseen": ["sun_Latn"]}
    folder = write_rich_run(
        tmp_path / "run", languages=FEW, kinds={"xquad": "qa", "mgsm": "number"}, groups=groups
    )
    report = write_report(folder)
    means = {(line["metric"], line["group"]): line for line in report["group_means"]}
    for metric in ("f1", "exact_number"):
        assert [name for of, name in means if of == metric] == ["seen", "related", "unseen", "other"]
        own = [
            score
            for score in report["scores"]
            if (score["stage"], score["step"]) == NEWEST and score["language"] in groups["related"]
            and score["metric"] == metric
        ]  # fmt: skip
        line = means[metric, "related"]
        assert line["cells"] == len(own)
        assert line["after"] == pytest.approx(mean(score["value"] for score in own))
        assert line["delta"] == pytest.approx(mean(score["delta"] for score in own))
        assert line["before"] == pytest.approx(line["after"] - line["delta"], abs=1e-4)
    assert [one["groups"] for one in report["transfer"]] == [["seen", "related"]] * 2 + [
        ["seen", "unseen"]
    ] * 2


def test_the_correlation_of_seen_and_unseen_languages_is_that_of_the_means(run):
    from scipy.stats import pearsonr

    report = json.loads((run / "report.json").read_text("utf-8"))
    scores, gains = report["transfer"]
    assert (scores["of"], gains["of"]) == ("score", "delta")
    x, y = zip(*((point["x"], point["y"]) for point in gains["points"]), strict=True)
    assert gains["pearson"] == pytest.approx(pearsonr(x, y).statistic)
    assert gains["n"] == len(x)
    assert {one["model"] for one in scores["points"]} == {
        "more, step 2,000"
    }  # checkpoints depend on each other
    assert len({one["column"] for one in scores["points"]}) == scores["n"] == len(scores["points"])
    (point,) = [one for one in scores["points"] if one["column"] == "mgsm"]
    seen = [s["value"] for s in report["scores"] if (s["stage"], s["step"]) == NEWEST and s["task"].startswith("mgsm.") and s["language"] in report["groups"]["seen"]]  # fmt: skip
    assert point["x"] == pytest.approx(mean(seen))


# ── forgetting, prompts, curves ───────────────────────────────────────────────────────────────────────────


def test_backward_transfer_is_now_minus_when_it_was_learned(run):
    report = json.loads((run / "report.json").read_text("utf-8"))
    value = {
        (s["stage"], s["step"], s["task"]): s["value"]
        for s in report["scores"]
        if s["metric"] == "exact_number"
    }
    columns = {one["language"]: one for one in report["forgetting"]["columns"] if one["column"] == "mgsm"}
    now, then = value["more", 2000, "mgsm.deu_Latn"], value["coit", 1000, "mgsm.deu_Latn"]
    newest = {code: one["cells"]["more"] for code, one in columns.items()}
    assert newest["deu_Latn"]["change"] == pytest.approx(now - then)
    assert newest["jav_Latn"]["change"] is None  # learned last: nothing could be forgotten
    never = value["more", 2000, "mgsm.sun_Latn"] - value["base", 0, "mgsm.sun_Latn"]
    assert (columns["sun_Latn"]["learned"], newest["sun_Latn"]["change"]) == (None, pytest.approx(never))
    (line,) = [
        line
        for line in report["forgetting"]["summary"]
        if (line["measure"], line["metric"]) == ("forgetting", "exact_number")
    ]
    told = [one["cells"]["more"]["change"] for one in columns.values() if one["learned"] == "coit"]
    assert line["value"] == pytest.approx(mean(max(-one, 0) for one in told))
    assert line["low"] is None  # the made-up predictions are not those of the scores


def test_mean_and_spread_over_prompts_are_those_of_the_scores(run, newest):
    report = json.loads((run / "report.json").read_text("utf-8"))
    (row,) = [
        row
        for row in report["prompts"]
        if (row["task"], row["metric"], row["model"]) == ("xnli.arb_Arab", "macro_f1", "more, step 2,000")
    ]
    values = [s["value"] for s in newest if (s["task"], s["metric"]) == ("xnli.arb_Arab", "macro_f1")]
    assert len(values) == 3
    assert (row["mean"], row["sd"]) == (pytest.approx(mean(values)), pytest.approx(stdev(values)))


def test_each_prompt_is_shown_with_the_hash_of_its_items(run, newest):
    text = (run / "report.html").read_text("utf-8")
    part = text[text.index("<summary>Prompts") :]
    part = part[: part.index("</details>")]
    score = next(s for s in newest if (s["task"], s["prompt"]) == ("xnli.arb_Arab", "native.0"))
    digest = re.search(r"data:(\w+)", score["signature"])[1]
    assert f'xnli.arb_Arab <span class="quiet">native.0 · <code>{digest}</code>' in part
    assert part.count("native.0") > 1  # in each language
    assert part.count(">english.1 ") == len(
        {s["task"].partition(".")[0] for s in newest if s["kind"] == "choice"}
    )


def test_scores_over_checkpoints_are_drawn_where_there_are_several(run, tmp_path):
    text = (run / "report.html").read_text("utf-8")
    assert "<h2>Scores over checkpoints</h2>" in text
    for step in (0, 500, 1000, 1500, 2000):
        assert f" at step {step:,}</title>" in text
    folder = write_rich_run(tmp_path / "run", languages=FEW[:2], kinds={"mgsm": "number"})
    for name in ("coit-500", "coit-1000", "more-1500"):
        (folder / "evals" / name / "scores.json").unlink()
    write_report(folder)
    assert "Scores over checkpoints" not in (folder / "report.html").read_text("utf-8")


# ── items ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_items_shown_are_the_best_the_worst_and_those_that_changed_most(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:3], kinds={"flores": "translation"})
    report = write_report(folder)
    task = "flores.eng_Latn-arb_Arab"
    now, base = (
        {
            line["id"]: line["chrf++"]
            for line in map(json.loads, (folder / "evals" / name / f"{task}.jsonl").open())
        }
        for name in ("more-2000", "base-0")
    )
    shown = [sample for sample in report["samples"] if sample["task"] == task]
    scores = [sample["score"] for sample in shown]
    assert scores == sorted(scores, reverse=True)
    change = {key: now[key] - base[key] for key in now}
    by_why = {why: sample for sample in shown for why in reversed(sample["why"])}
    assert min(now.values()) in [sample["score"] for sample in shown if "worst" in sample["why"]]
    assert by_why["best"]["score"] == max(now.values())
    most = max(change, key=lambda key: change[key])
    assert "gained most" in next(sample for sample in shown if sample["id"] == most)["why"]
    least = min(change, key=lambda key: change[key])
    assert change[least] < 0
    assert "lost most" in next(sample for sample in shown if sample["id"] == least)["why"]
    assert all(sample["base_score"] == base[sample["id"]] for sample in shown)


def test_text_runs_from_right_to_left_where_its_language_does(page):
    for code, language in (("arb_Arab", "ar"), ("heb_Hebr", "he"), ("urd_Arab", "ur")):
        found = [text for text in page.texts if text["text"] == SENTENCES[code] and text["lang"] == language]
        assert found, code
        assert {text["dir"] for text in found} == {"rtl"}
    labels = [text for text in page.texts if text["text"] == "positive" and text["lang"] == "ar"]
    assert labels
    assert {text["dir"] for text in labels} == {"auto"}  # a label is no Arabic
    prompts = [text for text in page.texts if text["text"].startswith("Below is")]
    assert prompts
    assert {text["dir"] for text in prompts} == {"auto"}  # and each line by its own letters: see report.css


def test_long_texts_are_folded_and_whole(run):
    text = (run / "report.html").read_text("utf-8")
    assert text.count("<summary>the rest of it</summary>") > 5


# ── leaks and counts ──────────────────────────────────────────────────────────────────────────────────────


def test_leaks_cuts_and_floors_are_told(page, run):
    (leaks,) = [table for table in page.tables if table[0][-1]["text"] == "an example"]
    assert [cell["text"].strip() for cell in leaks[1]] == [
        "xquad.arb_Arab", "1,000", "37", "3.7 %", "13", "f1 41.2", SENTENCES["arb_Arab"],
    ]  # fmt: skip
    (counts,) = [table for table in page.tables if table[0][-1]["text"] == "tested on"]
    row = next(row for row in counts if [cell["text"] for cell in row[:2]] == ["more-2000", "xquad.arb_Arab"])
    assert [cell["text"].strip() for cell in row[2:]] == [
        "1,000 of 1,190",
        "12",
        "3,400",
        "7",
        "190 no answer",
        "real files",
    ]
    floors = json.loads((run / "evals" / "floors-0" / "scores.json").read_text("utf-8"))["scores"]
    (scores,) = [
        table
        for table in page.tables
        if [cell["text"] for cell in table[0]][:3] == ["task", "language", "prompt"]
    ]
    row = next(
        row
        for row in scores
        if [c["text"] for c in row[:4]] == ["xnli.arb_Arab", "arb_Arab", "english.0", "accuracy"]
    )
    wanted = {
        f["model"]: f["value"] for f in floors if (f["task"], f["metric"]) == ("xnli.arb_Arab", "accuracy")
    }
    assert row[5]["text"] == f"majority {wanted['majority']:.1f}random {wanted['random']:.1f}"


# ── safety ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_asks_nothing_from_outside_and_runs_no_script(page, run):
    text = (run / "report.html").read_text("utf-8")
    assert page.outside == []
    assert page.scripts == 0
    assert not re.search(r"https?://|@import|url\(", text)


def test_hostile_text_is_shown_as_it_is(page, run):
    assert any(HOSTILE in text["text"] for text in page.texts)
    assert "<script" not in (run / "report.html").read_text("utf-8")
    rendered = (
        MarkdownIt("commonmark", {"html": False})
        .enable("table")
        .render((run / "report.md").read_text("utf-8"))
    )
    assert "<script" not in rendered


def test_fifty_scores_in_twelve_languages_make_a_page_of_at_most_one_and_a_half_megabytes(tmp_path):
    kinds = {f"task{n}": ("qa", "choice", "translation")[n % 3] for n in range(29)}
    options = {"prompts": ("english.0",), "evaluations": (EVALUATIONS[0], *EVALUATIONS[-2:])}
    folder = write_rich_run(tmp_path / "run", kinds=kinds, **options)
    report = write_report(folder)
    assert len({(one["task"], one["metric"]) for one in report["scores"]}) >= 600
    assert len({one["language"] for one in report["scores"]}) == len(LANGUAGES)
    assert (folder / "report.html").stat().st_size < 1_500_000


# ── the other formats ─────────────────────────────────────────────────────────────────────────────────────


def test_the_csv_holds_every_field_of_every_score(run):
    report = json.loads((run / "report.json").read_text("utf-8"))
    numbers = {"step", "value", "low", "high", "items", "delta", "delta_low", "delta_high", "p_value"}
    with (run / "report.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    back = [
        {
            name: json.loads(text) if name in numbers and text else None if name in numbers else text
            for name, text in line.items()
        }
        for line in lines
    ]
    assert [
        {name: one[name] for name in score} for one, score in zip(back, report["scores"], strict=True)
    ] == report["scores"]
    holm = {
        (one["model"], one["task"], one["metric"], one["prompt"]): one["p_holm"]
        for one in report["comparisons"]
    }
    of_newest = [line for line in lines if (line["stage"], int(line["step"])) == NEWEST]
    assert {
        line["p_holm"] for line in of_newest if line["task"] == "xquad.arb_Arab" and line["metric"] == "f1"
    } == {repr(holm["more, step 2,000", "xquad.arb_Arab", "f1", "english.0"])}


def test_the_markdown_tables_have_as_many_cells_in_every_row(run, newest):
    tokens = MarkdownIt("commonmark").enable("table").parse((run / "report.md").read_text("utf-8"))
    widths, tables = [], 0
    for token in tokens:
        if token.type == "table_open":
            tables, widths = tables + 1, []
        elif token.type == "tr_open":
            widths.append(0)
        elif token.type in ("td_open", "th_open"):
            widths[-1] += 1
        elif token.type == "table_close":
            assert len(set(widths)) == 1
    assert tables >= 5
    (score,) = [one for one in newest if (one["task"], one["metric"]) == ("xquad.arb_Arab", "f1")]
    assert f" {score['value']:.1f} (+{score['delta']:.1f}\\*) |" in (run / "report.md").read_text("utf-8")


def latex_tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, or an AssertionError for what LaTeX would stumble over."""
    assert text.isascii() or all(char.isascii() or "À" <= char <= "ÿ" for char in text)
    body = text[text.index(r"\begin{document}") :]
    body = re.sub(r"(?m)^%.*$", "", body)
    depth = 0
    for place, char in enumerate(body):
        escaped = place > 0 and body[place - 1] == "\\" and not body[:place].endswith(r"\\")
        depth += (char == "{" and not escaped) - (char == "}" and not escaped)
        assert depth >= 0, body[max(0, place - 60) : place + 10]
    assert depth == 0
    assert body.count("$") % 2 == body.count(r"\$") % 2
    opened = re.findall(r"\\begin\{(\w+)\}", body)
    assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", body))
    assert not re.search(r"(?<!\\)[#_^~]", re.sub(r"\$[^$]*\$", "", body)), "unescaped"
    tables = []
    for part in re.findall(
        r"\\begin\{(?:tabular|longtable)\}\{@\{\}(\w+)@\{\}\}(.*?)\\end\{(?:tabular|longtable)\}", body, re.S
    ):
        rows = []
        for line in part[1].split("\n"):
            if line.endswith(r"\\") and "&" in line and not line.startswith(r"\caption"):
                cells = re.split(r"(?<!\\)&", line)
                assert len(cells) == len(part[0]), line
                rows.append([cell.removesuffix(r"\\").strip() for cell in cells])
        tables.append(rows)
    return tables


def test_the_latex_has_the_scores_and_nothing_that_it_stumbles_over(run, newest):
    text = (run / "report.tex").read_text("utf-8")
    assert set(re.findall(r"\\usepackage(?:\[[^]]*\])?\{([^}]*)\}", text)) == {
        "fontenc",
        "inputenc",
        "textcomp,booktabs,longtable",
        "geometry",
    }
    tables = latex_tables(text)
    (score,) = [one for one in newest if (one["task"], one["metric"]) == ("xquad.arb_Arab", "f1")]
    cells = [cell for table in tables for row in table if row[0] == "Arabic" for cell in row]
    delta = f"{score['delta']:.1f}"
    assert f"{score['value']:.1f} {{\\scriptsize +{delta}}}\\textsuperscript{{{{*}}}}" in cells
    names = {row[0] for row in tables[-1]}
    assert r"flores.eng\_Latn{-}arb\_Arab english.0" in names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("50 % & $x_1^2$ #~", r"50 \% \& \$x\_1\textasciicircum{}2\$ \#\textasciitilde{}"),
        ("a\n\nb\tc", "a b c"),
        ("[x]*", "{[}x{]}{*}"),
        ("é 你", "é {[}U+4F60{]}"),
    ],
)
def test_latex_shows_any_text_as_it_is(text, shown):
    from jaxlingua.eval.report.escape import latex

    assert latex(text) == shown


# ── other evaluations ─────────────────────────────────────────────────────────────────────────────────────


def test_models_side_by_side_are_compared_with_the_first_of_them(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:4], kinds={"xquad": "qa", "mgsm": "number"})
    for old, new in (("base-0", "Small-0"), ("coit-500", "Middle-0"), ("more-2000", "Large-0")):
        (folder / "evals" / old).rename(folder / "evals" / new)
        content = json.loads((folder / "evals" / new / "scores.json").read_text())
        name = new.removesuffix("-0")
        content["scores"] = [
            {**score, "stage": name, "step": 0, "model": name} for score in content["scores"]
        ]
        content["base"] = content["base"] and {**content["base"], "evaluation": "Small-0"}
        (folder / "evals" / new / "scores.json").write_text(json.dumps(content))
    for name in ("coit-1000", "more-1500"):
        (folder / "evals" / name / "scores.json").unlink()
    (folder / "data.json").unlink()
    report = write_report(folder)
    assert report["baseline"] == "Small"
    text = (folder / "report.html").read_text("utf-8")
    assert "<h3>Middle against Small</h3>" in text
    assert "<h3>Large against Small</h3>" in text
    assert "<h3>Small" not in text
    assert report["forgetting"] is None
    assert report["samples"][0]["base_prediction"] is not None


def test_a_base_model_alone_is_shown_by_its_values(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:4], kinds={"mgsm": "number"})
    for file in folder.glob("evals/*-[1-9]*/scores.json"):
        file.unlink()
    report = write_report(folder)
    page = Page((folder / "report.html").read_text("utf-8"))
    assert {cell["class"] for row in page.tables[0] for cell in row if cell["title"]} == {"value"}
    assert report["comparisons"] == []


def test_a_metric_that_is_better_when_lower_gains_when_it_falls(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:4], kinds={"mgsm": "number"})
    for file in folder.glob("evals/*/scores.json"):
        file.write_text(file.read_text().replace("exact_number", "byte_perplexity_unscaled"))
    write_report(folder)
    page = Page((folder / "report.html").read_text("utf-8"))
    cells = [cell for row in page.tables[0] for cell in row if cell["title"]]
    assert {("−" in cell["text"]) for cell in cells if cell["class"] == "gain"} == {True}
    assert {("+" in cell["text"]) for cell in cells if cell["class"] == "loss"} == {True}


@pytest.mark.parametrize("metric", ["length", "comet", "judge_tie", "my_perplexity_like_scorer"])
def test_a_metric_without_a_better_side_is_no_gain_and_in_no_mean(tmp_path, metric):
    """Nothing says of a scorer which side is better."""
    folder = write_rich_run(tmp_path / "run", languages=FEW[:4], kinds={"mgsm": "number"})
    for file in folder.glob("evals/*/scores.json"):
        file.write_text(file.read_text().replace("exact_number", metric))
    report = write_report(folder)
    page = Page((folder / "report.html").read_text("utf-8"))
    assert {cell["class"] for row in page.tables[0] for cell in row if cell["title"]} == {"none"}
    assert report["group_means"] == []
    assert report["transfer"] == []


def test_tasks_of_the_harness_stand_with_their_language(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:4], kinds={"mgsm": "number"})
    file = folder / "evals" / "more-2000" / "scores.json"
    content = json.loads(file.read_text("utf-8"))
    plain = {
        name: content["scores"][0][name]
        for name in ("stage", "step", "model", "value", "low", "high", "items")
    }
    told = {"metric": "acc", "signature": "lm-eval:0.4.9|task:x", "prompt": "lm-eval", "kind": "harness"}
    content["scores"] += [
        {**plain, **told, "task": "harness:arc_easy", "language": "und_Zyyy"},
        {**plain, **told, "task": "harness:xcopa_ar.v2", "language": "arb_Arab"},
    ]
    file.write_text(json.dumps(content), "utf-8")
    report = write_report(folder)
    assert "und_Zyyy" not in {code for codes in report["groups"].values() for code in codes}
    assert {point["column"] for one in report["transfer"] for point in one["points"]} <= {"mgsm"}
    rows = Page((folder / "report.html").read_text("utf-8")).tables[0]
    heads = [cell["text"] for cell in rows[0]]
    (any_language,) = [row for row in rows if row and row[0]["text"] == "any languageund_Zyyy"]
    assert any_language[heads.index("harness:arc_easyacc")]["text"] == f"{plain['value']:.1f}"
    (arabic,) = [row for row in rows if row and row[0]["text"].startswith("Arabic")]
    assert arabic[heads.index("harness:xcopa_ar.v2acc")]["text"] == f"{plain['value']:.1f}"


def write_open_run(folder: Path) -> Path:
    """A run with open tasks, which are shown by the share of answers in another language, and with F1 beside."""
    write_rich_run(folder, languages=FEW, kinds={"xquad": "qa", "mgsm": "number"})
    for file in folder.glob("evals/*/scores.json"):
        content = json.loads(file.read_text("utf-8"))
        content["scores"] = [score for score in content["scores"] if score["metric"] != "exact_match"]
        for score in content["scores"]:
            if score["metric"] == "exact_number":
                score |= {"metric": "off_target", "kind": "open"}
        file.write_text(json.dumps(content), "utf-8")
    for file in folder.glob("evals/*/mgsm.*.jsonl"):
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        for line in lines:
            line |= {
                "off_target": 100.0 - line.pop("exact_number"),
                "undecided": 0.0,
                "length": 9.0,
                "targets": [],
            }
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def test_items_in_the_right_language_are_the_best_and_none_of_an_open_task_is_right_or_wrong(tmp_path):
    folder = write_open_run(tmp_path / "run")
    shown = [one for one in write_report(folder)["samples"] if one["task"] == "mgsm.arb_Arab"]
    assert [one["score"] for one in shown] == sorted(one["score"] for one in shown)
    assert {one["score"] for one in shown if "best" in one["why"]} == {0.0}
    assert {one["score"] for one in shown if "worst" in one["why"]} == {100.0}
    changed = [one for one in shown if {"gained most", "lost most"} & set(one["why"])]
    assert changed
    for one in changed:
        assert (one["score"] < one["base_score"]) == ("gained most" in one["why"])
    assert {one["exact"] for one in shown} == {None}


def test_an_item_with_a_high_score_that_is_not_the_answer_is_not_right(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:2], kinds={"flores": "translation"})
    for file in folder.glob("evals/*/flores.*.jsonl"):
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        lines = [{**line, "chrf++": 100.0, "prediction": "another"} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert {one["exact"] for one in write_report(folder)["samples"]} == {False}


def test_means_of_groups_never_mix_metrics_and_correlations_leave_out_those_that_stand_upside_down(tmp_path):
    report = write_report(write_open_run(tmp_path / "run"))
    lines = {(line["group"], line["metric"]): line for line in report["group_means"]}
    assert {metric for _, metric in lines} == {"f1", "off_target"}
    for (group, metric), line in lines.items():
        own = [
            score["value"]
            for score in report["scores"]
            if (score["stage"], score["step"]) == NEWEST and score["metric"] == metric
            and score["language"] in report["groups"][group]
        ]  # fmt: skip
        assert line["after"] == pytest.approx(mean(own))
        assert line["is_better"] == ((line["delta"] > 0) == (metric == "f1"))
    assert {point["metric"] for one in report["transfer"] for point in one["points"]} == {"f1"}


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ({"evaluation": "base-0", "fingerprint": "0" * 64}, ""),
        ({"evaluation": "old-0", "fingerprint": "0" * 64}, "differences are to old-0, not to base-0"),
        (
            {"evaluation": "base-0", "fingerprint": "9" * 64},
            "differences are to weights that base-0 has no more",
        ),
        (None, "differences are to a model that is not named, not to base-0"),
    ],
)
def test_differences_to_another_model_than_the_base_shown_are_not_shown(tmp_path, base, reason):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:3], kinds={"mgsm": "number"})
    file = folder / "evals" / "more-2000" / "scores.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "base": base}), "utf-8")
    of_newest = [one for one in write_report(folder)["comparisons"] if one["model"] == "more, step 2,000"]
    assert {one["reason"] for one in of_newest} == {reason}
    assert {one["delta"] is None for one in of_newest} == {bool(reason)}
    page = Page((folder / "report.html").read_text("utf-8"))
    shown = {cell["class"] for row in page.tables[0] for cell in row if cell["title"]}
    assert ("differs" in shown) == bool(reason)


def test_the_scores_without_leaked_items_are_those_of_the_model_shown(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:3], kinds={"xquad": "qa"})
    overlap = {"words": 13, "items": 1000, "leaked": ["1"], "examples": [["1", "seen"]]}
    for number, name in enumerate(("base-0", "coit-500", "more-1500", "more-2000")):
        file = folder / "evals" / name / "scores.json"
        content = json.loads(file.read_text("utf-8"))
        value = {} if name == "more-2000" else {"value_without": {"f1": 10.0 + number}}
        content["tasks"]["xquad.deu_Latn"]["overlap"] = {**overlap, **value}
        content["tasks"]["xquad.arb_Arab"]["overlap"] = {**overlap, "value_without": {"f1": 20.0 + number}}
        file.write_text(json.dumps(content), "utf-8")
    write_report(folder)
    page = Page((folder / "report.html").read_text("utf-8"))
    (leaks,) = [table for table in page.tables if table[0][-1]["text"] == "an example"]
    assert {row[0]["text"]: row[5]["text"].strip() for row in leaks[1:]} == {
        "xquad.arb_Arab": "f1 23.0",
        "xquad.deu_Latn": "",
    }


def test_a_headline_counts_the_items_of_a_task_once_however_many_prompts_asked_them(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:3], kinds={"xnli": "choice"})
    tasks = {score["task"] for score in write_report(folder)["scores"] if score["stage"] == "more"}
    text = (folder / "report.html").read_text("utf-8")
    count = "1 task" if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    assert f"{count}, {1000 * len(tasks):,} items in 3 prompts" in text


def test_no_text_of_a_run_is_markup_in_the_markdown(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:3], kinds={"xnli": "choice"})
    hostile = "<img src=x onerror=alert(1)>|*"
    told = json.loads((folder / "provenance.json").read_text("utf-8"))
    told |= {"devices": hostile, "started": hostile, "command": hostile, "versions": {"jaxlingua": hostile}}
    (folder / "provenance.json").write_text(json.dumps(told))
    for file in folder.glob("evals/*/scores.json"):
        content = json.loads(file.read_text("utf-8"))
        for score in content["scores"]:
            score["metric"] += hostile if score["metric"] == "macro_f1" else ""
            score["model"] += hostile if score["stage"] == "floors" else ""
        file.write_text(json.dumps(content), "utf-8")
    write_report(folder)
    lines = (folder / "report.md").read_text("utf-8").split("\n")
    assert any("&lt;img" in line for line in lines)
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render("\n".join(lines))
    assert "<img" not in rendered


def test_the_color_of_a_difference_within_chance_is_about_a_third_as_strong(tmp_path):
    folder = write_rich_run(tmp_path / "run", languages=FEW[:4], kinds={"mgsm": "number"})
    strengths = {}
    for p_value in (1e-6, 0.9):
        file = folder / "evals" / "more-2000" / "scores.json"
        content = json.loads(file.read_text("utf-8"))
        for score in content["scores"]:
            score["p_value"] = p_value
        file.write_text(json.dumps(content), "utf-8")
        write_report(folder)
        text = (folder / "report.html").read_text("utf-8").partition('<h2 id="forgetting">')[0]
        cells = re.findall(r'<td class="(?:gain|loss)" style="--s:([\d.]+)"', text)
        strengths[p_value] = [float(one) for one in cells]
    assert len(strengths[0.9]) >= 2
    assert strengths[0.9] == pytest.approx([0.35 * one for one in strengths[1e-6]], abs=0.011)


def test_the_mean_of_a_group_with_a_cell_that_cannot_be_compared_has_no_difference(run, page):
    """mlqa.deu_Latn was measured on other items: the mean of the others' differences is not that of the group."""
    heads = [cell["text"] for cell in page.tables[0][0]]
    means = {row[0]["text"]: row for row in page.tables[0] if row and row[0]["text"].startswith("mean of")}
    assert re.fullmatch(r"\d+\.\d", means["mean of seen"][heads.index("mlqaf1")]["text"])
    assert re.fullmatch(r"\d+\.\d[+−]\d+\.\d", means["mean of seen"][heads.index("mgsmexact_number")]["text"])
    line = next(
        one
        for one in (run / "report.md").read_text("utf-8").split("\n")
        if one.startswith("| **mean of seen** |")
    )
    assert len(re.findall(r"\([+−]", line)) < len(heads) - 1


def test_a_headline_tells_no_before_where_a_base_score_cannot_be_compared(run, newest):
    """f1 of mlqa.deu_Latn was measured on 50 items before and on 1,000 after."""
    text = (run / "report.md").read_text("utf-8")
    shown = {
        metric: next(line for line in text.split("\n") if line.startswith(f"- {kind}, {metric}:"))
        for kind, metric in (("question answering", "f1"), ("arithmetic", "exact\\_number"))
    }
    assert "→" not in shown["f1"]
    assert "→" in shown["exact\\_number"]
    assert "not all comparable with base" in (run / "report.html").read_text("utf-8")
