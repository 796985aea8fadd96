"""The fastest of a field: who competes, and what a tie is worth."""

import pytest

from tests.eval.claims.worlds import NO, YES, as_published, attnbench_rows, findings_of, like_for_like

NAMES = ("best-128", "best-512", "best-1024")


def kind(cell):
    mapping = cell.attention_mapping
    return mapping["mechanism"], mapping["implementation"], mapping.get("num_kv_heads")


def test_a_tie_with_the_fastest_reproduces_nothing_and_is_named():
    findings = findings_of(attnbench_rows(lambda cell: 1e-3, lengths=(512,)), *NAMES)
    finding = findings["best-512"]
    assert finding.verdict == NO
    tied = finding.reason.split("Undecided: ties with ")[1]
    assert "fused MHA" in tied
    assert "MQA" not in tied
    assert "Different functions are ranked, by design" in finding.reason


def test_a_lead_within_the_noise_is_no_win():
    def barely(cell):
        return 1e-3 * (0.998 if kind(cell) == ("softmax", "fused", 1) else 1.0)

    finding = findings_of(attnbench_rows(barely, lengths=(512,)), "best-512")["best-512"]
    assert finding.verdict == NO
    assert finding.ours.startswith("MQA (tied: ")


def test_the_claimed_one_that_alone_is_fastest_is_reproduced():
    def winners(cell):
        wins = {128: ("softmax", "fused", 4), 512: ("softmax", "fused", 1)}.get(cell.length)
        return as_published(cell) * (0.5 if kind(cell) == wins else 1)

    findings = findings_of(attnbench_rows(winners, lengths=(128, 512, 1024)), *NAMES)
    assert [like_for_like(findings[name]) for name in NAMES] == [YES, YES, YES]
    assert "Undecided" not in findings["best-512"].reason


def test_fused_attention_competes():
    def fused_wins(cell):
        return as_published(cell) / (10 if kind(cell) == ("softmax", "fused", None) else 1)

    findings = findings_of(attnbench_rows(fused_wins, lengths=(512,)), *NAMES)
    assert findings["best-512"].verdict == NO
    assert findings["best-512"].ours == "fused MHA, of 12 mechanisms and settings"


@pytest.mark.parametrize(("factor", "winner"), [(1e-3, "causal linear (cumsum)"), (1.0, "block-sparse (32)")])
def test_causal_linear_competes_by_its_ratio_in_rounds_of_its_own(factor, winner):
    def causal(cell):
        # Whatever slows all of a group leaves the ratios in it alone.
        slow = 1e-2 if cell.group.startswith("causal") else 1.0
        return as_published(cell) * slow * (factor if kind(cell)[1] == "cumsum" else 1.0)

    finding = findings_of(attnbench_rows(causal, lengths=(1024,)), "best-1024")["best-1024"]
    assert finding.ours == f"{winner}, of 12 mechanisms and settings"
