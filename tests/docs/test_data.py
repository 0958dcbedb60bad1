"""docs/data.md: every source that it shows reads the record that it shows."""

import re

import yaml

from jaxlingua.command_line import check_config
from jaxlingua.data.sources import open_source
from tests.docs.shell import ROOT, blocks_of

PAGE = "docs/data.md"


def test_each_source_reads_the_record_that_is_shown_of_it(tmp_path):
    rows = re.findall(r"^\| `(\S+)` \| .* \| `(.*)` \|$", (ROOT / PAGE).read_text("utf-8"), re.MULTILINE)
    for name, record in rows:
        (tmp_path / name).write_text(record.replace("⇥", "\t").replace("⏎", "\n") + "\n", "utf-8")
    config = check_config(yaml.safe_load(blocks_of(PAGE, "yaml")[0][1]), PAGE)
    read = set()
    for name, source in config.data.sources.items():
        if source.kind == "huggingface":  # is not here
            continue
        records = open_source(name, source, str(tmp_path)).records("all")
        assert len(records) == (1 if source.kind != "cldr" else source.records), name
        if source.kind == "parallel":
            assert records[0].texts["jav_Latn"] == "Sugeng enjing.", name
        if source.kind != "cldr":
            read |= {source.path.replace("{language}", language) for language in ("eng_Latn", "jav_Latn")}
    assert read == {name for name, _ in rows}
