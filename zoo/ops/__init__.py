"""Pure functions on arrays: masks, patterns, softmax attention and its faster forms, recurrences, positions."""
