"""What an interval leaves open is said to be open, and what it settles is not."""

from tests.eval.claims.worlds import NO, YES, attnbench_rows, findings_of, published_findings, quality_rows


def test_an_interval_that_holds_1_is_said_to_decide_nothing():
    findings = findings_of(attnbench_rows(lambda cell: 1e-3, lengths=(128,)), "mqa-slower-128")
    assert findings["mqa-slower-128"].verdict == NO
    assert findings["mqa-slower-128"].reason.count("Undecided: an interval holds 1.") == 1
    assert "Undecided" not in published_findings()["mqa-slower-128"].reason


def test_what_is_far_from_the_published_figure_is_decided_even_if_it_is_about_1():
    findings = findings_of(attnbench_rows(lambda cell: 1e-3), "causal-linear-avoid", "mqa-1024", "blocksparse-tie")
    assert findings["causal-linear-avoid"].verdict == NO
    assert "Undecided" not in findings["causal-linear-avoid"].reason
    assert "holds both the published figure and 1" in findings["mqa-1024"].reason


def test_seeds_that_pair_tell_a_small_cost_and_recall_counts_as_quality():
    losses = quality_rows({"mha": (2.87816, 2.89976, 2.88214), "linear": (2.87968, 2.90087, 2.88345)})
    finding = findings_of(losses, "linear-approximates")["linear-approximates"]
    assert finding.verdict == YES
    assert finding.low > 0
    alike = quality_rows({"mha": (2.1, 2.2, 2.3), "linear": (2.11, 2.19, 2.3)})
    assert findings_of(alike, "linear-approximates")["linear-approximates"].verdict == NO
    forgetful = [
        row.model_copy(
            update={
                "identity": f"recall {row.identity}",
                "quality": row.quality.model_copy(update={"task": "mqar", "metric": "accuracy"}),
            }
        )
        for row in quality_rows({"mha": (0.99, 0.98, 0.99), "linear": (0.2, 0.21, 0.2)})
    ]
    assert findings_of([*alike, *forgetful], "linear-approximates")["linear-approximates"].verdict == YES
