"""Building blocks around attention: caches, positions, norms, feed-forward layers, embeddings."""
