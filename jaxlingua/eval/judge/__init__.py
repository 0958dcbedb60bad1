"""A language model behind an endpoint judges answers: one by one, and against the base model's.

answers.py      tasks and answers to verdicts, scores and counts
asking.py       many questions at one time, each answered once and for ever
wording.py      what is asked (wording.yaml), and what a reply says
endpoint.py     one request, with patience
transcript.py   judge.jsonl: every reply, so that a second evaluation asks nothing
"""
