"""The lesson in a browser: a server that follows run files, and a report that is one file. Never loads torch."""
