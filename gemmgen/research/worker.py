"""A process that works for another one, stays warm between calls, and can be given up.

A call names a function of a module; arguments and result are pickled. The caller waits as long as
there is news: a kernel that hangs, or a compiler that ends the process, costs the worker and not
the caller. A worker whose caller is gone ends, whatever it is doing.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

START_SECONDS = 120.0  # to import what a first call needs, from a cold disk

_to_caller: Connection | None = None  # in a worker


class WorkerLost(Exception):
    """The worker ended, or said nothing for too long, before its call was done."""

    def __init__(self, reason: str, note: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.note = note  # the last that it said
        self.silent = silent  # it was there, and hung


class Worker:
    """A process, started by its first call and again by the one after it was lost."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """`variables` are set in its environment."""
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def call(self, function: str, *arguments: Any, seconds: float) -> Any:
        """The result of `module:function`; what it raises is raised here.

        Raises WorkerLost when the process ends, or does not `note` anything for `seconds`.
        """
        fresh = self._process is None
        connection = self._started()
        note = ""
        try:
            connection.send((function, arguments))
            while connection.poll(seconds + (START_SECONDS if fresh and not note else 0)):
                kind, value = connection.recv()
                if kind == "note":
                    note = value
                elif kind == "raise":
                    raise value
                else:
                    return value
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerLost(self._death(), note) from None
        self.close()
        raise WorkerLost(f"nothing was heard of it for {seconds:g} s", note, silent=True)

    def close(self) -> None:
        """End the process, also one that hangs; a call under way in another thread is lost."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.wait()
        if connection is not None:
            connection.close()

    def _started(self) -> Connection:
        if self._connection is not None:
            return self._connection
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,
                env={**os.environ, **self._variables},
            )
        self._connection = Connection(ours.detach())
        self._connection.send(list(sys.path))
        return self._connection

    def _death(self) -> str:
        process = self._process
        if process is None:
            return "it was ended"
        try:
            status = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = 0
        self.close()
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return f"its process ended with status {status}"


def note(text: str) -> None:
    """Tell the caller what is being done, which also proves that something is. Else no effect."""
    if _to_caller is not None:
        _to_caller.send(("note", text))


def resolve(function: str) -> Callable[..., Any]:
    """The function of `module:function`."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


# --- In the worker ------------------------------------------------------------------------------


def _serve(connection: Connection) -> None:
    global _to_caller
    _to_caller = connection
    sys.path[:] = connection.recv()
    # The terminal's Ctrl-C is for the caller, who ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, args=(connection.fileno(),), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = connection.recv()
            connection.send(_answer(function, arguments))


def _answer(function: str, arguments: Sequence[Any]) -> tuple[str, Any]:
    try:
        return "result", resolve(function)(*arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return "raise", error


def _end_with_caller(descriptor: int) -> None:
    """Without it a worker that waits for a hanging kernel would outlive its caller for ever."""
    hangup = select.poll()
    hangup.register(descriptor, getattr(select, "POLLRDHUP", select.POLLHUP))
    hangup.poll()
    os._exit(1)


if __name__ == "__main__":
    # As a module of its own name: `note` must find what `_serve` sets.
    from gemmgen.research import worker

    worker._serve(Connection(int(sys.argv[1])))
