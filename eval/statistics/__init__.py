"""Statistics, on SciPy: intervals, paired ratios, scaling exponents, crossovers, and signs of invented spread."""
