"""The lesson's judgement: similarity, laziness, topics, remarks, report cards, advice. Pure Python, without torch."""
