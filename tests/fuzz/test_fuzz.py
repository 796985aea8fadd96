"""Hostile inputs by the thousand: each is accepted or refused in one line, whatever it is."""

import pytest

from tests.fuzz.campaign import cases, outcomes, summary
from tests.fuzz.subjects import SUBJECTS

# Over two thousand, in as many processes as there are groups; the names share what takes long to import.
COUNT = 2200
GROUPS = {
    "checkpoints": ["checkpoint", "manifest", "folder"],
    "data": ["corpus", "cache", "generation"],
    "sections": ["sections", "variant_file", "calibration"],
    "records": ["records", "report"],
    "commands": ["overrides", "run_files", "other_commands"],
}


def test_every_subject_has_a_group():
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(SUBJECTS)
    assert len(cases(0, COUNT)) >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_hostile_inputs_end_in_a_value_or_in_one_line(group):
    names = [case for case in cases(0, COUNT) if case.split("/")[0] in GROUPS[group]]
    found = list(outcomes(names))
    assert len(found) == len(names)
    assert not any(outcome.is_fault for outcome in found), summary(found)
    # Inputs that are all refused, or all accepted, would test the first line of what reads them.
    results = {outcome.result for outcome in found}
    assert results == {"accepted", "refused"}
