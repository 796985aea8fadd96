"""Layer and inlined code: what is compared, and of whose layer."""

import math

from tests.eval.claims.worlds import NO, YES, findings_of, like_for_like, wrapper_rows


def test_outputs_that_differ_in_a_bit_are_not_bit_identical():
    """One cell of them, as its row is then: incorrect, and without times."""
    rows = wrapper_rows()
    index = next(index for index, row in enumerate(rows) if row.cell.variant == "mha_hand_inlined")
    failed = rows[index].correctness.model_copy(update={"max_error": 1e-9, "passed": False})
    rows[index] = rows[index].model_copy(
        update={"status": "incorrect", "correctness": failed, "timing": None, "comparison": None}
    )
    finding = findings_of(rows, "wrapper-bits")["wrapper-bits"]
    assert like_for_like(finding) == NO
    assert finding.value == 1e-9


def test_an_interval_that_reaches_beyond_a_tie_leaves_it_open_and_the_cell_is_named():
    """Ten percent is far from a tie; a wide interval around 1 is not."""
    for seconds, noise, is_open in ((1.3, 0.001, False), (1.0, 0.4, True)):
        rows = wrapper_rows()
        (layer,) = (
            row for row in rows if row.cell.variant == "mha" and row.cell.group.startswith("L=64 D=768 N=12 B=4 c")
        )
        inlined = next(row for row in rows if row.cell.group == layer.cell.group and row.cell.role == "baseline")
        samples = [
            seconds * base * math.exp(noise * (-1) ** index)
            for index, base in enumerate(inlined.timing.samples_seconds)
        ]
        rows[rows.index(layer)] = layer.model_copy(
            update={"timing": layer.timing.model_copy(update={"samples_seconds": samples})}
        )
        reason = findings_of(rows, "wrapper-fixed")["wrapper-fixed"].reason
        assert f"Like for like: {NO}" in reason
        assert ("Undecided: an interval reaches beyond 10 % of 1." in reason) is is_open
        assert layer.cell.group in reason


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
