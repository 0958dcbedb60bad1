"""How Sphinx makes the site: `sphinx-build -W -c docs . build/site`, from the root of a clone.

The root is the source folder, so that a link means the same on the site and where the files are browsed: one
to a page leads to that page, one to any other file to a copy of the file, and a broken one ends the build.
"""

import re
from pathlib import Path

project = "jaxlingua"
extensions = ["myst_parser"]
include_patterns = ["README.md", "docs/*.md", "tpu/README.md", "benchmarks/RESULTS.md"]
root_doc = "docs/index"
myst_heading_anchors = 4
html_theme = "furo"
html_title = "jaxlingua"


def add_contents(app, page: str, text: list[str]) -> None:
    """The pages that docs/index.md links to become the contents of the site, in the order of the links."""
    if page == root_doc:
        pages = re.findall(r"\]\(([^)#:]+\.md)\)", text[0])
        text[0] += "\n\n```{toctree}\n:hidden:\n" + "\n".join(pages) + "\n```\n"


def lead_there(app, error: Exception | None) -> None:
    """The page that is at the root of the site leads to docs/index.html."""
    if error is None:
        Path(app.outdir, "index.html").write_text(
            '<meta http-equiv="refresh" content="0; url=docs/index.html">'
        )


def setup(app) -> None:
    app.connect("source-read", add_contents)
    app.connect("build-finished", lead_there)
