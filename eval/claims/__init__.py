"""Published claims of articles and posts about attention on Apple Silicon, and verdicts on them computed from rows."""

from eval.claims.claim import Claim, Finding, Verdict
from eval.claims.judge import all_claims, judge

__all__ = ["Claim", "Finding", "Verdict", "all_claims", "judge"]
