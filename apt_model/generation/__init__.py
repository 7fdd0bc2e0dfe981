"""Evaluation of a trained model: corpus metrics, answer metrics, inference speed; and completing a prompt."""
