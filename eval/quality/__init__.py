"""Quality: what a trained model knows and can recall."""
