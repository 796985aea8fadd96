"""One file per mechanism. A file that defines only `allowed(query_index, key_index, config)` is complete."""
