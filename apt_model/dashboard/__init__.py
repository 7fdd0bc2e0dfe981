"""Browser display: a server that follows run files, and a report as one HTML file. Never loads torch."""
