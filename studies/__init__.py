"""What a student keeps of its teacher: quality on held-out text. See README.md."""
