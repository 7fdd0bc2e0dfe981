"""The commands of `apt-model`, one room a module: each adds its own parser, and runs."""
