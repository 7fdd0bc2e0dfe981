"""Pre-flight checks of a run: tokenizers, data, models, settings, memory and disk, before the first step."""
