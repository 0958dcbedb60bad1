"""What came of a translation: counts, and the records that need a look."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlingua import identify
from jaxlingua.data.instruction_file import InstructionFile
from jaxlingua.eval.translate.fields import Field


def report_of(
    file: InstructionFile,
    texts: Sequence[Mapping[str, str]],
    fields: Mapping[str, Field],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Counts over all fields, and of each record with a problem its place, id and problems by field."""
    every = [fields[text] for record in texts for text in record.values()]
    asked = [field for field in every if field.asked]
    told = Counter(field.told for field in asked)
    problems = Counter(problem for field in asked for problem in field.problems)
    listed = []
    for row, record in zip(file.rows, texts, strict=True):
        found = {name: list(fields[text].problems) for name, text in record.items() if fields[text].problems}
        if found:
            name = {"id": row.fields["id"]} if isinstance(row.fields.get("id"), str | int) else {}
            listed.append({"index": row.index, **name, **found})
    decided = told["on"] + told["off"]
    return {
        "settings": dict(settings),
        "records": len(texts),
        "records_with_problems": len(listed),
        "fields": {
            "translated": len(asked),
            "empty": sum(not text.strip() for record in texts for text in record.values()),
            "nothing_to_translate": sum(not field.asked and bool(field.text.strip()) for field in every),
        },
        "parts": sum(field.asked for field in asked),
        "parts_asked_around_protected_spans": sum(field.split for field in asked),
        "protected_spans": sum(field.protected for field in every),
        "language": {
            "identifier": identify.identifier_version(),
            **{name: told[name] for name in ("on", "off", "undecided")},
            "share_on": told["on"] / decided if decided else None,
        },
        "problems": dict(sorted(problems.items())),
        "problems_by_record": listed,
    }


def report_line(report: Mapping[str, Any]) -> str:
    """The report in a line."""
    language, fields = report["language"], report["fields"]
    decided = language["on"] + language["off"]
    share = f"{100 * language['share_on']:.1f} % of {decided:,}" if decided else "none"
    problems = "; ".join(f"{name} {count:,}" for name, count in report["problems"].items()) or "none"
    return (
        f"{report['records']:,} records, {fields['translated']:,} fields translated; {share} that can be "
        f"told in the target language; fields with problems: {problems}"
    )
