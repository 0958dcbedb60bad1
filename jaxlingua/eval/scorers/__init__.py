"""Scores by programs that run in environments of their own, such as COMET.

run.py       segments to a command and back, its results kept
scripts/     what such a command runs; plain files that need nothing of jaxlingua
"""
