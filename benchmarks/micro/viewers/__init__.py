"""The cost of viewers: load tests of the page's server."""
