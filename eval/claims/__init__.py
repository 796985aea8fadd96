"""Published claims of articles and posts about attention on Apple Silicon, and verdicts on them computed from rows."""

from eval.claims.claim import Claim, Finding, Verdict
from eval.claims.judge import judge
from eval.claims.published import CLAIMS

__all__ = ["CLAIMS", "Claim", "Finding", "Verdict", "judge"]
