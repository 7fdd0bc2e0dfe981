"""The embedded lesson: a Chinese corpus over eight topics, and a small teacher that has read it."""
