"""What happened: records, where they go, and the file that keeps them."""
