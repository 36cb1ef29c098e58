"""Holds one thread of a process still, as a driver call that never returns does: the others go on, and speak."""

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17  # of ptrace(2)


def busiest_thread(pid: str) -> int:
    """The one that has computed most."""
    def ticks(task: Path) -> int:
        return int((task / "stat").read_text().rpartition(")")[2].split()[11])  # utime

    return int(max(Path(f"/proc/{pid}/task").iterdir(), key=ticks).name)


def ptrace(request: int, thread: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of thread {thread}")


@contextmanager
def held_still(thread: int):
    ptrace(SEIZE, thread)
    try:
        ptrace(INTERRUPT, thread)
        os.waitpid(thread, 0x40000000)  # __WALL: until it stands
        yield
    finally:
        ptrace(DETACH, thread)
