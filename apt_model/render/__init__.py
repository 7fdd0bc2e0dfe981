"""How it looks as text. Everything shown is sanitised here; no torch."""
