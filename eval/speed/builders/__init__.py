"""Workloads that repeat published experiments."""
