"""Benchmark of a distillation step: time and memory of this library's loss implementations and of other libraries'."""
