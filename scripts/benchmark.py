"""Measures speed and memory: `python scripts/benchmark.py suite=attnbench`, or `variants=[mha,swa] levels=[layer]`."""

if __name__ == "__main__":
    # Inside, because every worker process imports this file once more and needs neither.
    from recipes.app import run
    from recipes.benchmark import main

    run("benchmark", main)
