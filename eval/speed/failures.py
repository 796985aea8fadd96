"""What became of a cell that did not go through: one status and one line, from an exception or a process's end."""

import signal

from eval.rows.schema import Status
from eval.speed.protocol import Stage
from zoo.config import UserError
from zoo.runtime.memory import address_space_is_limited, is_exhaustion

_DOING = {
    Stage.STARTING: "while its process started",
    Stage.BUILDING: "while it was built",
    Stage.CHECKING: "while it was checked",
    Stage.CALLING: "while it was called",
}
_LONGEST = 300
# How a process ends whose allocator got nothing from the system and went on.
_WITHOUT_MEMORY = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)


def from_exception(error: Exception, stage: Stage) -> tuple[Status, str]:
    """Status and reason of a cell that raised.

    What refuses its own configuration is unavailable; any other exception is a fault, which may be mended.
    """
    text = _last_line(error)
    if is_exhaustion(error):
        return "out_of_memory", f"{text or 'no memory was left'} ({_DOING[stage]})"
    if isinstance(error, UserError):
        return "unavailable", text
    return "crashed", f"{type(error).__name__}: {text} ({_DOING[stage]})"


def from_exit_code(code: int, stage: Stage, *, killed_for_memory: bool = False) -> tuple[Status, str]:
    """Status and reason of the cell at work when its process died.

    Args:
        code: As `multiprocessing` has it: minus the signal's number where a signal ended the process.
        stage: What was being done.
        killed_for_memory: Whether the kernel has counted a process killed for want of memory meanwhile.
    """
    if code < 0 and killed_for_memory:
        return "out_of_memory", f"killed {_DOING[stage]} by the kernel, which counts it as out of memory"
    if code in _WITHOUT_MEMORY and address_space_is_limited():
        name = signal.Signals(-code).name
        return (
            "out_of_memory",
            f"ended by {name} {_DOING[stage]} under a limit of memory (ulimit), as MLX does there",
        )
    if code == -signal.SIGKILL:
        return "out_of_memory", f"killed by SIGKILL {_DOING[stage]}, as Linux does when memory runs out"
    if code < 0:
        return "crashed", f"ended by {signal.Signals(-code).name} {_DOING[stage]}"
    return "crashed", f"ended its process with exit code {code} {_DOING[stage]}"


def from_silence(seconds: float, stage: Stage) -> tuple[Status, str]:
    """Status and reason of a cell that took too long over one step."""
    return "crashed", f"took longer than {seconds:g} s over one step {_DOING[stage]}, and was stopped"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else ""
