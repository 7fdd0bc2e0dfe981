"""Losses: logits to numbers and gradients; divergences, the fused pass, top-k, other vocabularies, hidden layers."""
