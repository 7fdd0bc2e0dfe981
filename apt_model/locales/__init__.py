"""The sentences of the lesson, one TOML file a language, all with the same keys."""
