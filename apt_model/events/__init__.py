"""Events of a run: their records, the sinks that receive them, and the file that stores them."""
