"""The plugins that train a student: the standard one (numbers) and the visual one (a lesson), with the same loop."""
