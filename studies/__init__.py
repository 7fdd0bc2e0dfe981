"""Studies of student quality: what a student keeps of its teacher, on held-out text. See README.md."""
