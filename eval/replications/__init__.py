"""Published experiments, repeated: each with its suite, its builder and its claims; the rest of `eval` imports none."""
