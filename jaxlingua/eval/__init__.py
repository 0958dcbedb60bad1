"""Stage 7: what a model can do, in numbers: tasks, metrics, evaluation, report."""
