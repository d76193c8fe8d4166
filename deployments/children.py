"""Child processes that cannot outlive us, however we end.

Two means of Linux, which hold even after `kill -9`: a child asks the kernel for a signal at its parent's death, and a
process declares itself the parent of every orphan among its descendants. A mark in the environment would miss a server
that writes its title over it, a process group one that moved to another.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil

#: `man 2 prctl`.
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
#: Ending a process can orphan others, which are found in the next round.
_ROUNDS = 10

_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def spawn(
    command: list[str],
    *,
    cwd: Path,
    output: IO[bytes] | None = None,
    environment: dict[str, str] | None = None,
    own_session: bool = False,
) -> subprocess.Popen[bytes]:
    """A child that gets SIGTERM when the thread that called this ends; `output` takes both its streams."""
    parent = os.getpid()

    def before_it_starts() -> None:
        _control(_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before we could ask
            os._exit(1)

    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=own_session,
        preexec_fn=before_it_starts,
    )


def adopt_orphans() -> None:
    """Make this process the parent of each descendant whose own parent ends, so that `end_descendants` finds all."""
    _control(_SET_CHILD_SUBREAPER, 1)


def bury_orphans(besides: subprocess.Popen[bytes]) -> None:
    """Forget adopted children that have ended; `besides` is the child whose exit status is still wanted."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != besides.pid:
            os.waitpid(ended.si_pid, 0)


def end_descendants(*, patience_s: float = 5.0) -> None:
    """End every descendant of this process: kindly first, by force after `patience_s`."""
    for _ in range(_ROUNDS):
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(left, timeout=patience_s)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=patience_s)


def _control(option: int, value: int) -> None:
    if _prctl is not None and _prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
