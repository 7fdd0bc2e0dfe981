"""The built-in demo: a Chinese corpus on eight topics, and a small teacher trained on it."""

from apt_model.demo.lesson import load_teacher, new_student, read_corpus

__all__ = ["load_teacher", "new_student", "read_corpus"]
