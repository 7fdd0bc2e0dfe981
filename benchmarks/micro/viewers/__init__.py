"""Load tests of the server of `apt-model watch`."""
