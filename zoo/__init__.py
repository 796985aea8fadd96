"""Attention Zoo: trainable transformers on MLX whose attention comes from a registry."""
