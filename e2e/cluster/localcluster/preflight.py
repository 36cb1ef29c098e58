"""What the machine must offer, asked before anything is made. One sentence each, with the remedy."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from . import cgroups
from .layout import Layout
from .shell import Failure, succeeds

_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "runc", "ctr", "ip", "nsenter", "iptables", "ipset",
             "conntrack", "socat", "openssl", "cc", "curl")
_CNI = Path("/usr/lib/cni")
_DISK_GIB = 3
_MEMORY_GIB = 2


def check(cluster: Layout) -> None:
    problems = _programs()
    if not problems:
        problems = [p for p in (_cgroups(), _namespaces(), _overlay(), _disk(cluster), _memory()) if p]
    if problems:
        raise Failure("this machine cannot run the cluster:\n  - " + "\n  - ".join(problems))


def need_root() -> None:
    if os.geteuid() != 0:
        raise Failure("a cluster on this machine needs root (mounts, namespaces, cgroups): run it again with sudo")


def _programs() -> list[str]:
    lost = [p for p in _PROGRAMS if not shutil.which(p)]
    lost += [str(_CNI / p) for p in ("ptp", "host-local", "portmap", "loopback") if not (_CNI / p).exists()]
    return [f"programs are missing ({', '.join(lost)}): run scripts/install-deps cluster"] if lost else []


def _cgroups() -> str:
    if not cgroups.hierarchies():
        return "no cgroup file system is mounted at /sys/fs/cgroup: mount one (mount -t cgroup2 none /sys/fs/cgroup)"
    if lost := cgroups.missing():
        return f"the cgroup controllers {', '.join(lost)} are not available: enable them on the kernel's command line"
    probe = cgroups.tracking() / f"dsm-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as why:
        return f"cgroups cannot be made ({why}): inside a container, start it privileged, with its own cgroups writable"
    return ""


def _namespaces() -> str:
    # All in a namespace that is gone when the command ends.
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-ec",
         "ip link add b0 type bridge; ip link add v0 type veth peer name v1;"
         "iptables -t nat -N PROBE; iptables -t nat -A PROBE -m conntrack --ctstate NEW -m comment --comment x"
         " -m statistic --mode random --probability 0.5 -j MASQUERADE"], capture_output=True, text=True)
    if tried.returncode != 0:
        return (f"namespaces, bridges, veth links or iptables rules cannot be made ({tried.stderr.strip()}): it takes"
                " CAP_SYS_ADMIN, CAP_NET_ADMIN and the kernel modules bridge, veth, nf_nat, xt_conntrack, xt_comment,"
                " xt_statistic; inside a container, start it privileged")
    return ""


def check_network_rules() -> None:
    """What kube-router's rules are made of, in a namespace that is gone when the command ends."""
    tried = subprocess.run(
        ["unshare", "--net", "sh", "-ec",
         "ipset create pods hash:ip timeout 0; ipset create nets hash:net timeout 0; iptables -N PROBE;"
         "iptables -A PROBE -m set --match-set pods src -m set --match-set nets dst -m mark --mark 0x1/0x1"
         " -m physdev --physdev-is-bridged -m addrtype --src-type LOCAL -m conntrack --ctstate ESTABLISHED"
         " -j MARK --set-xmark 0x1/0x1;"
         "iptables -A PROBE -m limit --limit 10/minute -j NFLOG --nflog-group 100;"
         "iptables -A PROBE -m multiport -p tcp --dports 1:2 -m comment --comment x -j REJECT"],
        capture_output=True, text=True)
    if tried.returncode != 0:
        raise Failure(f"this machine cannot enforce network rules ({tried.stderr.strip()}): it takes the program ipset"
                      " (scripts/install-deps cluster) and the kernel modules ip_set_hash_ip, ip_set_hash_net, xt_set,"
                      " xt_mark, xt_physdev, xt_addrtype, xt_limit, xt_multiport, xt_NFLOG and ipt_REJECT")


def _overlay() -> str:
    if "overlay" in Path("/proc/filesystems").read_text() or succeeds("modprobe", "overlay"):
        return ""
    return "the kernel has no overlay file system: load its module (modprobe overlay)"


def _disk(cluster: Layout) -> str:
    for where in (Path("/var/lib"), cluster.checkout):
        free = shutil.disk_usage(where).free / 2**30
        if free < _DISK_GIB:
            return f"{where} has {free:.1f} GiB free and the cluster wants {_DISK_GIB}: make room"
    return ""


def _memory() -> str:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) / 2**20
    if free < _MEMORY_GIB:
        return f"{free:.1f} GiB of memory are free and the cluster wants {_MEMORY_GIB}: end something"
    return ""


def choose_port(cluster: Layout) -> int:
    """The first free port from the cluster's own on."""
    for port in range(cluster.preferred_port, cluster.preferred_port + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failure(f"no port of 127.0.0.1 from {cluster.preferred_port} to {cluster.preferred_port + 49} is free:"
                  " end what listens there (ss -ltnp)")
