"""The built-in demo: a Chinese corpus on eight topics, and a small teacher trained on it."""
