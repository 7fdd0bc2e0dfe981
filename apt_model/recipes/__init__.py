"""Recipes: measured settings, one TOML file each, with purpose, student and the table of measurements."""
