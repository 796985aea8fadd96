"""Suites: named sets of measurements, one file each."""
