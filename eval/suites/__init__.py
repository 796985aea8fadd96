"""Suites: named lists of cells to measure, one file each, found by being in this folder or in `eval/replications/`."""

from collections.abc import Mapping

from eval.plugins import SUITES, declared
from eval.suites.suite import Suite, SuiteRequest

__all__ = ["Suite", "SuiteRequest", "suites"]


def suites() -> Mapping[str, Suite]:
    """What `suite=` names: the `SUITE` of every file."""
    return {suite.name: suite for suite in declared("SUITE", SUITES)}
