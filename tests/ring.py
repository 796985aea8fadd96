"""Processes on one ring, as MLX's launcher connects them, for tests of what they compute together."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ring_environment(path: Path, ports: Sequence[int], rank: int) -> dict[str, str]:
    """What tells a process that it is of this rank, where each rank listens at its port; written to a file."""
    path.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
    return {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(path)}


class Cable:
    """Passes on what is sent to a port to another one, until it is cut."""

    def __init__(self, target: int) -> None:
        """Listens for one connection."""
        self._target, self._ends = target, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._connect, daemon=True).start()

    def cut(self) -> None:
        """Closes both ends."""
        for each in self._ends:
            each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _connect(self) -> None:
        near, _ = self._listener.accept()
        self._listener.close()
        far = socket.socket()
        while far.connect_ex(("127.0.0.1", self._target)):
            # Whoever is to listen there has not begun.
            time.sleep(0.05)
        self._ends += [near, far]
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65_536):
                sink.sendall(content)


def told_by_leader(module: str, folder: Path, *, processes: int = 2) -> list[dict[str, Any]]:
    """The lines of JSON that the first of so many processes prints, each of which runs a module."""
    ports = free_ports(processes)
    first, *others = (
        subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, **ring_environment(folder / f"hosts-{rank}.json", ports, rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    )
    shown, errors = first.communicate()
    for each in others:
        each.communicate()
    assert first.returncode == 0, errors
    return [json.loads(line) for line in shown.splitlines()]
