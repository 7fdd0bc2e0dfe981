"""Measurements that can be repeated: each module with a `main` is a script with `--help`. See README.md."""
