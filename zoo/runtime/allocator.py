"""Keeps freed memory in the process, where else the kernel would zero the same pages for MLX again and again.

That back end takes every array from malloc, and by default glibc maps arrays of 128 KiB and more anew each time and
gives freed memory back at once. The page faults were a quarter of a small model's training step. Only glibc has these
switches; on other systems nothing is changed. The price: the process's resident memory stays at its peak.
"""

import ctypes
import os
import platform
import sys
from typing import Literal

Report = Literal["keeps freed memory", "as the system has it"]

# Parameter numbers of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# Arrays of a gibibyte and more are rare and long-lived: giving those back costs nothing.
_GIBIBYTE = 2**30
# Whoever sets one of these has chosen already.
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def activate() -> Report:
    """Makes glibc keep what is freed, unless the environment configures its allocator.

    Returns:
        What holds now.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _CHOSEN):
        return "as the system has it"
    mallopt = ctypes.CDLL(None).mallopt
    kept = mallopt(_M_TRIM_THRESHOLD, _NEVER) and mallopt(_M_MMAP_THRESHOLD, _GIBIBYTE)
    return "keeps freed memory" if kept else "as the system has it"
