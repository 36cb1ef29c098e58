"""Starting, stopping and pausing the components: plain processes, one log file each.

A component's pid file is believed only while that pid is a member of the cluster's cgroup and
started when the file says, so that a number which the kernel gave to somebody else is never hit.
"""

import json
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from . import cgroups, network
from .layout import Layout
from .shell import Failure, wait_for


@dataclass(frozen=True)
class Component:
    name: str
    argv: list[str]
    in_namespace: bool = True
    env: dict[str, str] = field(default_factory=dict)


def _pid_file(cluster: Layout, name: str) -> Path:
    return cluster.run / f"{name}.pid"


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started; None if there is none, or only a zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else int(after_name[19])


def pid_of(cluster: Layout, name: str) -> int | None:
    try:
        said = json.loads(_pid_file(cluster, name).read_text())
    except (OSError, ValueError):
        return None
    if _start_time(said["pid"]) != said["start"] or not cgroups.is_member(cluster.cgroup, said["pid"]):
        return None
    return said["pid"]


def start(cluster: Layout, component: Component) -> None:
    if pid_of(cluster, component.name):
        return

    def in_child() -> None:
        cgroups.join(cluster.cgroup)
        if component.in_namespace:
            network.enter(cluster.netns)

    cluster.logs.mkdir(parents=True, exist_ok=True)
    with open(cluster.logs / f"{component.name}.log", "ab") as log:
        child = subprocess.Popen(component.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                 env={**os.environ, **component.env}, start_new_session=True, preexec_fn=in_child)
    started = _start_time(child.pid)
    if started is None:
        raise Failure(f"{component.name} ended at once; see {cluster.logs}/{component.name}.log")
    _pid_file(cluster, component.name).write_text(json.dumps({"pid": child.pid, "start": started}))


def stop(cluster: Layout, name: str, how: signal.Signals = signal.SIGTERM) -> None:
    """Ends a component; what does not heed SIGTERM within 15 s is killed."""
    for each in (how, signal.SIGKILL):
        pid = pid_of(cluster, name)
        if pid is None:
            break
        os.kill(pid, each)
        os.kill(pid, signal.SIGCONT)  # a paused process would not see the signal
        try:
            wait_for(f"the end of {name}", lambda: pid_of(cluster, name) is None, 15)
        except Failure:
            continue
    _pid_file(cluster, name).unlink(missing_ok=True)


def send(cluster: Layout, name: str, what: signal.Signals) -> None:
    pid = pid_of(cluster, name)
    if pid is None:
        raise Failure(f"{name} is not running")
    os.kill(pid, what)
