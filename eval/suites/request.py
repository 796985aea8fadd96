"""What a suite that fixes its own settings does with a request."""

import dataclasses
from collections.abc import Sequence

from eval.suites.suite import SuiteRequest
from zoo.config import UserError


def require_free(request: SuiteRequest, suite: str, free: Sequence[str]) -> None:
    """Refuses a request for what a suite decides itself.

    Args:
        request: What the user asked for.
        suite: Its name.
        free: Fields that the user may choose.

    Raises:
        UserError: Names the field, and those that are free.
    """
    for field in dataclasses.fields(request):
        if field.name not in free and getattr(request, field.name) is not None:
            choices = f"it leaves {', '.join(free)} open" if free else "it leaves nothing open"
            raise UserError(f"{field.name} must not be given to suite={suite}, which sets it itself; {choices}")
