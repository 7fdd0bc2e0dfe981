"""`python -m apt_model` is `apt-model`."""

import sys

from apt_model.cli import main

if __name__ == "__main__":
    sys.exit(main())
