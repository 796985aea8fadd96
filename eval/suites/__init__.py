"""Suites: named sets of measurements, one file each."""

from collections.abc import Mapping

from eval.suites import adaptive, attnbench, calibrate, decode, grid, grid48, layouts, long, targets, transfer, wrapper
from eval.suites.suite import Suite, SuiteRequest

# What `suite=` names; the user's own grid first.
SUITES: Mapping[str, Suite] = {
    module.SUITE.name: module.SUITE
    for module in (grid, attnbench, grid48, wrapper, layouts, transfer, decode, long, calibrate, adaptive, targets)
}

__all__ = ["SUITES", "Suite", "SuiteRequest"]
