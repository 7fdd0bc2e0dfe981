"""What it means: similarity, laziness, topics, remarks, report cards. Pure Python: no torch here, or below."""
