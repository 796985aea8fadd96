"""Where a result came from: device, back end, BLAS, versions and commit; stored with every run. No machine paths."""

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import mlx.core as mx

from zoo.runtime import allocator, blas
from zoo.runtime.backend import backend
from zoo.runtime.native import instruction_set
from zoo.runtime.threads import usable_cores

PACKAGES = ("attention-zoo", "mlx", "mlx-lm", "numpy")
# A file system that does not answer must not keep a run from starting.
_GIT_SECONDS = 10
CHECKOUT = Path(__file__).resolve().parents[2]


def describe() -> dict[str, Any]:
    """Everything besides the configuration that a result depends on, JSON-ready."""
    library = blas.active()
    commit, changed = _state_at_first(CHECKOUT)
    return {
        "device": device_label(),
        "backend": backend(),
        "cores": usable_cores(),
        "blas": {
            "name": library.name,
            "config": library.config,
            "num_threads": library.num_threads,
            "how": library.how,
            "pooled": library.pooled,
        },
        "native": instruction_set(),
        "allocator": allocator.activate(),
        "platform": f"{platform.system()} {_kernel_version()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "commit": commit,
        "uncommitted_changes": changed,
    }


def _kernel_version() -> str:
    """The numbers of the operating system's release; what builders of kernels append tells nothing of speed."""
    return re.split(r"[^\d.]", platform.release(), maxsplit=1)[0]


def device_label() -> str:
    """The device by its own name, for example "AMD EPYC, 2 cores, Linux CPU" or "Apple M4 Max, Metal"."""
    name = str(mx.device_info().get("device_name") or platform.processor() or platform.machine())
    kind = backend()
    if kind == "cpu":
        system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
        cores = usable_cores()
        return f"{name}, {cores} {'core' if cores == 1 else 'cores'}, {system} CPU"
    return f"{name}, {'Metal' if kind == 'metal' else 'CUDA'}"


def package_version(name: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def checkout_state(checkout: Path) -> tuple[str | None, bool | None]:
    """Commit of a checkout, and whether tracked files differ from it; None for both where there is none, or no git."""
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    return _git(checkout, "rev-parse", "HEAD"), None if changed is None else bool(changed)


# What a process runs is the code of its start, whatever is committed later; and every record asks.
_state_at_first = functools.cache(checkout_state)


def _git(checkout: Path, *arguments: str) -> str | None:
    """Output of git in a checkout, or None where there is no checkout or no git."""
    # A package installed inside somebody else's repository must not report that one's commit.
    if not (checkout / ".git").exists():
        return None
    # These name other repositories, work trees and settings than the checkout's own.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(checkout), *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=variables, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
