"""Advice, explanations, and what no row settles."""

from tests.eval.claims.worlds import (
    NO,
    YES,
    attnbench_rows,
    findings_of,
    grid_rows,
    like_for_like,
    on_metal,
    published_findings,
    step_rows,
)


def test_the_speed_of_a_model_says_nothing_of_a_larger_ones():
    names = ("throughput-absolute", "throughput-absolute-qwen", "throughput-absolute-7b")
    findings = findings_of(on_metal(step_rows(0.6)), *names)
    for name in names:
        assert findings[name].verdict == "not measured", name
        assert "llama_tiny" in findings[name].ours


def test_a_difference_between_equal_ones_shows_in_the_controls():
    rows = [
        row.model_copy(
            update={
                "timing": row.timing.model_copy(
                    update={"samples_seconds": [1.05 * seconds for seconds in row.timing.samples_seconds]}
                )
            }
        )
        if row.cell.role == "control"
        else row
        for row in grid_rows(batch_sizes=(1,))
    ]
    assert like_for_like(findings_of(rows, "flash-demo-over-practical")["flash-demo-over-practical"]) == YES
    assert like_for_like(published_findings()["flash-demo-over-practical"]) == NO


def test_dense_variants_differ_marginally_only_if_gqa_does_too():
    def gqa_is_slow(cell):
        return 1e-3 * (1.5 if cell.attention_mapping.get("num_kv_heads") == 4 else 1.0)

    finding = findings_of(attnbench_rows(gqa_is_slow, lengths=(256, 512)), "dense-tie")["dense-tie"]
    assert like_for_like(finding) == NO
    assert like_for_like(published_findings()["dense-tie"]) == YES
