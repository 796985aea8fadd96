"""Caches are judged by the bytes that two variants of one model really held."""

import pytest

from tests.eval.claims.worlds import YES, decode_rows, findings_of

NAMES = ("mqa-cache", "gqa-memory")


def test_caches_as_small_as_published_are_reproduced_from_measured_bytes():
    findings = findings_of(decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000}), *NAMES)
    assert [findings[name].verdict for name in NAMES] == [YES, YES]
    assert [findings[name].value for name in NAMES] == [0.875, 0.5]
    assert "(1,000 against 8,000 bytes)" in findings["mqa-cache"].ours


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, None), (4, 8), (8, 2)])
def test_a_model_of_other_heads_settles_nothing(num_heads, num_kv_heads):
    heads = {"num_heads": num_heads, "num_kv_heads": num_kv_heads}
    rows = [
        row.model_copy(update={"cell": row.cell.model_copy(update=heads)})
        for row in decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000})
    ]
    assert {finding.verdict for finding in findings_of(rows, *NAMES).values()} == {"not measured"}


def test_caches_of_two_groups_are_not_compared():
    rows = [
        row.model_copy(update={"cell": row.cell.model_copy(update={"group": row.cell.variant})})
        for row in decode_rows({8: 8000, 4: 4000, 2: 2000, 1: 1000})
    ]
    assert {finding.verdict for finding in findings_of(rows, *NAMES).values()} == {"not measured"}
