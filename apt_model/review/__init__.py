"""A lesson that was recorded, looked at again: the run object, its plots, its summary in Markdown."""
