"""Speed and memory: cells become subjects, subjects are checked, then timed in interleaved rounds."""
