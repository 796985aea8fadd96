"""Published claims, as data: one file for each source."""

from eval.claims.claim import Claim
from eval.claims.published import attnbench, flash, wrapper

CLAIMS: tuple[Claim, ...] = (*attnbench.CLAIMS, *flash.CLAIMS, *wrapper.CLAIMS)

__all__ = ["CLAIMS"]
