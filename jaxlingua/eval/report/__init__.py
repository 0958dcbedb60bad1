"""Stage 7, eval: a run folder to report.html, .md, .json, .csv and .tex."""

from jaxlingua.eval.report.models import model_key, models_of
from jaxlingua.eval.report.pictures import curves_of
from jaxlingua.eval.report.read import read_run
from jaxlingua.eval.report.rows import headlines, mean_of, score_rows
from jaxlingua.eval.report.words import number
from jaxlingua.eval.report.write import write_report

__all__ = [
    "curves_of",
    "headlines",
    "mean_of",
    "model_key",
    "models_of",
    "number",
    "read_run",
    "score_rows",
    "write_report",
]
