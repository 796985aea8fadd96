"""What was published on Apple's GPU, judged from another device, says so."""

from tests.eval.claims.worlds import NO, OTHER, YES, findings_of, on_metal, published_attnbench, published_findings
from tests.eval.rows_factory import MACHINE

SENTENCE = f"Published on Apple's GPU; the verdict is for {MACHINE.device}."


def test_every_verdict_from_another_device_on_apples_gpu_says_so_once():
    for name, finding in published_findings().items():
        due = finding.verdict in (YES, NO, OTHER) and finding.claim.on_apple and bool(finding.evidence)
        assert finding.reason.count(SENTENCE) == due, name


def test_what_is_the_same_on_any_device_or_of_another_does_not():
    silent = {name for name, finding in published_findings().items() if not finding.claim.on_apple}
    assert silent == {"gqa-memory", "mqa-cache", "linear-approximates", "intervals", "wrapper-cpu"}


def test_from_apples_gpu_nothing_needs_saying():
    findings = findings_of(on_metal(published_attnbench()), "mqa-256", "slope-mha", "amx", "m4-times", "spread")
    assert findings["mqa-256"].verdict == YES
    assert not any("Published on Apple's GPU" in finding.reason for finding in findings.values())
    assert not any("Apple M4" in finding.reason for finding in findings.values() if finding.evidence)
