"""Whose answers are these: a map of values over models and languages, beside two controls (UniVaR).

questions.py reads what is asked, asking.py has models answer it and answers.py keeps that, views.py draws
views, encoder.py learns from them, identification.py and shift.py measure, pictures.py and report.py tell.
"""
