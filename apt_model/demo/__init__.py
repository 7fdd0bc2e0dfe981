"""The embedded lesson: a Chinese corpus over eight topics, and a small teacher that has read it."""

from apt_model.demo.lesson import load_teacher, new_student, read_corpus

__all__ = ["load_teacher", "new_student", "read_corpus"]
