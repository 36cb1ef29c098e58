"""Control groups of one cluster, in cgroup v1, v2 and hybrid machines.

Every process of the cluster is in /<id> of the tracking hierarchy or below: the components in
/<id>/system, the containers where kubelet puts them. So ending a cluster is ending the processes of
its groups, and nothing that is not in them is ever signalled.
"""

import os
import signal
import time
from pathlib import Path

from .shell import Failure

# kubelet wants these to exist where it is told to put its pods.
NEEDED = ("cpu", "cpuset", "memory", "pids")


def hierarchies() -> list[Path]:
    """Mount points of all cgroup file systems, v1 and v2."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind = line.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            found.append(Path(where))
    return found


def unified() -> bool:
    return not any(line.split()[2] == "cgroup" for line in Path("/proc/mounts").read_text().splitlines())


def tracking() -> Path:
    """The one hierarchy that says which processes are ours."""
    mounts = hierarchies()
    for mount in mounts:
        if "pids" in mount.name.split(","):
            return mount
    return mounts[0]


def missing() -> list[str]:
    """The controllers that this machine does not offer."""
    if unified():
        have = (tracking() / "cgroup.controllers").read_text().split()
    else:
        have = [name for mount in hierarchies() for name in mount.name.split(",")]
    return [name for name in NEEDED if name not in have]


def create(group: str) -> None:
    for mount in hierarchies():
        here = mount / group.strip("/")
        here.mkdir(exist_ok=True)
        if unified():
            _enable(mount)
            _enable(here)
            (here / "system").mkdir(exist_ok=True)
        elif mount == tracking():
            (here / "system").mkdir(exist_ok=True)
        elif "cpuset" in mount.name.split(","):
            # In v1 a new cpuset is empty, and nothing can run in it before it is filled.
            for what in ("cpuset.cpus", "cpuset.mems"):
                if not (here / what).read_text().strip():
                    (here / what).write_text((mount / what).read_text())


def _enable(group: Path) -> None:
    """Lets the groups below have the controllers that this one has (v2)."""
    for name in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError as why:
            if name in NEEDED:
                raise Failure(f"the cgroup controller {name} cannot be given to groups below {group} ({why.strerror}):"
                              " inside a container, move its processes into a group below the root first") from why


def join(group: str) -> None:
    """Puts the calling process into the group of the cluster's components."""
    (tracking() / group.strip("/") / "system" / "cgroup.procs").write_text(str(os.getpid()))


def members(group: str) -> set[int]:
    """Every process of the cluster."""
    pids: set[int] = set()
    for mount in hierarchies():
        top = mount / group.strip("/")
        if not top.is_dir():
            continue
        for folder, _, _ in os.walk(top):
            try:
                pids.update(int(p) for p in (Path(folder) / "cgroup.procs").read_text().split())
            except OSError:
                pass  # gone in the meantime
    pids.discard(0)
    return pids


def is_member(group: str, pid: int) -> bool:
    return pid in members(group)


def kill(group: str, deadline: float = 20.0) -> set[int]:
    """Kills the members until none is left; returns those that do not die."""
    end = time.monotonic() + deadline
    while True:
        left = members(group)
        if not left or time.monotonic() > end:
            return left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


def remove(group: str) -> None:
    for mount in hierarchies():
        top = mount / group.strip("/")
        for folder, _, _ in os.walk(top, topdown=False):
            # The kernel lets go of a group a moment after its last process.
            for _ in range(100):
                try:
                    os.rmdir(folder)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.05)
