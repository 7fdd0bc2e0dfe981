"""The cost of a distillation step: time and memory of every way to its loss, beside other libraries."""
