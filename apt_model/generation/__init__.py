"""What a student says on its own, outside training."""
