"""Settings that were measured, a TOML file each: what for, the student, the settings, the table that earned it."""
