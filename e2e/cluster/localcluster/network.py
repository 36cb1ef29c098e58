"""The cluster's own network namespace. The host's network is not touched: every link is made inside.

Pods are attached with the `ptp` plugin: each has its own link to the node, so all traffic between
pods is routed by the node and passes kube-proxy's rules in both directions.
"""

import ctypes
import os
from pathlib import Path

from .layout import DNS_IP, Layout
from .shell import run

CLONE_NEWNET = 0x40000000


def create(cluster: Layout) -> None:
    name = cluster.id
    run("ip", "netns", "add", name)
    inside = ("ip", "-n", name)
    run(*inside, "link", "set", "lo", "up")
    # A bridge is up only with a port that is up: one end of a pair of links, the other end unused.
    run(*inside, "link", "add", "node0", "type", "bridge")
    run(*inside, "link", "add", "port0", "type", "veth", "peer", "name", "port1")
    run(*inside, "link", "set", "port0", "master", "node0")
    for link in ("port0", "port1", "node0"):
        run(*inside, "link", "set", link, "up")
    for node in cluster.nodes:
        run(*inside, "addr", "add", f"{node.ip}/24", "dev", "node0")
    run(*inside, "addr", "add", f"{DNS_IP}/32", "dev", "node0")
    # Leads nowhere; but the API server and kubelet look for the interface of the default route.
    run(*inside, "route", "add", "default", "dev", "node0")
    run("nsenter", f"--net={cluster.netns}", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")


def delete(cluster: Layout) -> None:
    if cluster.netns.exists():
        run("ip", "netns", "delete", cluster.id)


def enter(netns: Path) -> None:
    """Moves the calling process into a network namespace; its sockets of before stay where they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(netns, os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
    finally:
        os.close(fd)
