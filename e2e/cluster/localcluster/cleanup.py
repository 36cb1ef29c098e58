"""Taking a cluster away, whatever state it is in: running, half started, or killed in the middle.

It asks the machine and not a record of what was started: processes by their cgroup, mounts by
their path. So it can be run at any time and any number of times.
"""

import os
import re
import shutil
import signal
from pathlib import Path

from . import cgroups, network, processes
from .layout import CHECKOUT, Layout
from .shell import Failure, run, say, succeeds


def take_down(cluster: Layout) -> None:
    # kubelet and containerd first, or they would start again what is killed next.
    for node in cluster.nodes:
        for what in ("kubelet", "containerd"):
            processes.stop(cluster, node.component(what), signal.SIGKILL)
    left = cgroups.kill(cluster.cgroup)
    if left:
        raise Failure(f"processes {sorted(left)} of {cluster.id} do not end (see /proc/PID/stack); try again later")
    sockets = _shim_sockets(cluster)
    _unmount_below(cluster.run, cluster.data)
    network.delete(cluster)
    for path in (*sockets, *_scattered(cluster)):
        path.unlink(missing_ok=True)
    for folder in (cluster.run, cluster.data):
        if folder.exists():
            shutil.rmtree(folder)
    cgroups.remove(cluster.cgroup)
    for folder in (cluster.pki, cluster.config):
        shutil.rmtree(folder, ignore_errors=True)
    cluster.kubeconfig.unlink(missing_ok=True)


def exists(cluster: Layout) -> bool:
    return (cluster.run.exists() or cluster.data.exists() or cluster.netns.exists()
            or any((m / cluster.id).exists() for m in cgroups.hierarchies()))


def take_down_orphans() -> None:
    """Clusters of checkouts that were deleted: nobody else can take them down any more."""
    for data in Path("/var/lib").glob("dsm-*-*"):
        owner = data / "checkout"
        match = re.fullmatch(r"dsm-[0-9a-f]{8}-([a-z0-9]{1,12})", data.name)
        if not match or not owner.is_file():
            continue
        checkout = Path(owner.read_text())
        cluster = Layout(checkout, match[1])
        if cluster.id == data.name and checkout != CHECKOUT and not checkout.exists():
            say(f"removing what is left of the cluster of {checkout}, which is no more")
            take_down(cluster)


def _shim_sockets(cluster: Layout) -> list[Path]:
    """Each shim listens in a folder that all containerds share; its bundle says where."""
    found = []
    for node in cluster.nodes:
        for address in (node.run / "containerd").glob("io.containerd.runtime.v2.task/*/*/address"):
            where = address.read_text().removeprefix("unix://")
            if where.startswith("/run/containerd/s/"):
                found.append(Path(where))
    return found


def _scattered(cluster: Layout) -> list[Path]:
    """Files that cannot be told to go elsewhere: the CNI library's cache and kubelet's links to logs."""
    # Each of our pods has an entry for our network and one for its loopback, both with the sandbox's id.
    results = Path("/var/lib/cni/results")
    found = list(results.glob(f"{cluster.id}-*"))
    found += [results / f"cni-loopback-{f.name.removeprefix(cluster.id + '-').rpartition('-')[0]}-lo" for f in found]
    for link in Path("/var/log/containers").glob("*.log"):
        if os.path.islink(link) and os.readlink(link).startswith(f"{cluster.data}/"):
            found.append(link)
    return found


def _mounts_below(*folders: Path) -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        where = line.split()[4].encode().decode("unicode_escape")
        if any(where.startswith(f"{folder}/") for folder in folders):
            found.append(where)
    return found[::-1]  # the last mounted first


def _unmount_below(*folders: Path) -> None:
    for _ in range(5):
        mounts = _mounts_below(*folders)
        if not mounts:
            return
        for where in mounts:
            succeeds("umount", where)
    for where in _mounts_below(*folders):
        run("umount", "--lazy", where)
    if left := _mounts_below(*folders):
        raise Failure(f"these mounts cannot be removed: {' '.join(left)}")
