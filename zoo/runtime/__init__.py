"""What the machine offers: matrix library, back end, dtype, threads, memory, seeds and versions."""
