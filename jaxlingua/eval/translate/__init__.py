"""Instruction files in other languages: `python -m jaxlingua.data translate`.

command.py understands the command line, fields.py makes parts of fields and fields of answers, asking.py has
the model answer, report.py tells what came of it, files.py writes it beside answers so far.
"""
