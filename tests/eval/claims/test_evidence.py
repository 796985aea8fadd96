"""Which rows pair: those whose samples came from the same rounds."""

import pytest

from tests.eval.claims.worlds import findings_of, wrapper_rows


def renamed(row, rounds_id):
    return row.model_copy(update={"timing": row.timing.model_copy(update={"rounds_id": rounds_id})})


def is_inlined(row):
    return row.cell.variant == "mha_hand_inlined"


@pytest.mark.parametrize("names", [("a", "b"), ("a", None), (None, "b")])
def test_rows_of_other_rounds_do_not_pair(names):
    rows = [renamed(row, names[is_inlined(row)]) for row in wrapper_rows()]
    assert findings_of(rows, "wrapper-fixed")["wrapper-fixed"].verdict == "not measured"


def test_rows_of_the_same_rounds_pair_whatever_the_code_they_were_stored_from():
    rows = [renamed(row, "a") for row in wrapper_rows()]
    moved = [
        row.model_copy(update={"machine": row.machine.model_copy(update={"commit": "fedcba"})})
        if is_inlined(row)
        else row
        for row in rows
    ]
    assert findings_of(moved, "wrapper-fixed")["wrapper-fixed"].verdict == "different functions compared"


def test_rows_of_unequal_sample_counts_do_not_pair():
    longer = {row.identity: row for row in wrapper_rows(rounds=12)}
    rows = [longer[row.identity] if is_inlined(row) else row for row in wrapper_rows()]
    assert findings_of(rows, "wrapper-fixed")["wrapper-fixed"].verdict == "not measured"
