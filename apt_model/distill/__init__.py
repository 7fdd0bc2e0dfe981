"""Distillation training: the loop, its losses, teachers, students and checkpoints. What it emits holds no tensors."""
