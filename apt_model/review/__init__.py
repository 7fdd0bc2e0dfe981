"""Recorded runs in Python: the run object, its plots, its summary in Markdown."""
