"""The front doors: the standard plugin (numbers) and the visual one (a lesson). Both run the same loop."""
