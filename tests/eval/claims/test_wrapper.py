"""Layer and inlined code: what is compared, and of whose layer."""

from tests.eval.claims.worlds import NO, YES, findings_of, like_for_like, wrapper_rows


def test_outputs_that_differ_in_a_bit_are_not_bit_identical():
    rows = [
        row.model_copy(update={"correctness": row.correctness.model_copy(update={"max_error": 1e-9})})
        if row.cell.variant == "mha_hand_inlined"
        else row
        for row in wrapper_rows()
    ]

    assert like_for_like(findings_of(rows, "wrapper-bits")["wrapper-bits"]) == NO


def test_a_layers_own_rounding_is_no_difference_from_the_inlined_code():
    rows = [
        row.model_copy(update={"correctness": row.correctness.model_copy(update={"max_error": 1e-6})})
        if row.cell.variant == "mha"
        else row
        for row in wrapper_rows()
    ]

    assert like_for_like(findings_of(rows, "wrapper-bits")["wrapper-bits"]) == YES


def test_a_layers_target_is_stated_and_counted_in_cells():
    finding = findings_of(wrapper_rows(), "wrapper-fixed")["wrapper-fixed"]

    assert finding.ours.startswith("of this library's layer: ")
    assert finding.ours.count(" cells;") == 1
    assert "a ratio of at most 1.02" in finding.reason
