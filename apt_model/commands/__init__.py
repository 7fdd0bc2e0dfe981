"""The commands of `apt-model`, one or two to a module: each module adds their parsers and runs them."""
