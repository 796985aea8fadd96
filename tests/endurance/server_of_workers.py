"""Imported by the server of workers alone: a client that is killed while it asks for a worker does not end the server.

`multiprocessing.forkserver` lets an OSError of an aborted connection pass, but ends on the EOFError of a client that
connected and was killed before it had sent its file descriptors.
"""

import errno
import multiprocessing.reduction as reduction
import socket

_receive = reduction.recvfds


def receive_unless_gone(connection: socket.socket, size: int) -> list[int]:
    """File descriptors of a client.

    Raises:
        ConnectionAbortedError: If the client ended before it had sent them.
    """
    try:
        return _receive(connection, size)
    except EOFError:
        raise ConnectionAbortedError(errno.ECONNABORTED, "the client has ended") from None


reduction.recvfds = receive_unless_gone  # type: ignore[assignment]
