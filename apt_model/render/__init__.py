"""Display of a run: terminal, notebook, log, tables. All text is sanitised here; no torch."""
