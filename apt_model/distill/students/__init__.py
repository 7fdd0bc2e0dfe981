"""Students: fresh ones from a config, or cut out of a teacher by layers, heads and width."""
