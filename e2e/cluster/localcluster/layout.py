"""Where everything of one cluster lives and what it is called.

Every name grows from a hash of the checkout's path and the cluster's name, so that two checkouts,
or two clusters of one checkout, never meet. Nothing here touches the machine.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]

MOST_NODES = 2
# The first node's: the control plane and the DNS server are there.
NODE_IP = "10.10.0.1"
# Pods find the DNS server where NodeLocal DNSCache is on other clusters, which network rules have to let through.
DNS_IP = "169.254.20.10"
NODE_NETWORK = "10.10.0.0/24"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
API_PORT = 6443
# Two different things on purpose: a short name for files, and one nobody else answers to.
PAUSE_IMAGE = "localhost/dsm-pause:1"


@dataclass(frozen=True)
class Layout:
    checkout: Path
    name: str

    @property
    def id(self) -> str:
        digest = hashlib.sha256(str(self.checkout).encode()).hexdigest()[:8]
        return f"dsm-{digest}-{self.name}"

    # In the checkout: what a person wants to read.
    @property
    def local(self) -> Path:
        return self.checkout / ".local" / self.name

    @property
    def logs(self) -> Path:
        return self.local / "log"

    @property
    def pki(self) -> Path:
        return self.local / "pki"

    @property
    def config(self) -> Path:
        return self.local / "config"

    @property
    def kubeconfig(self) -> Path:
        return self.local / "kubeconfig"

    # Outside of it, under short paths: a Unix socket's path may have 107 bytes, and mounts inside a
    # checkout are a trap for whoever deletes it.
    @property
    def data(self) -> Path:
        return Path("/var/lib") / self.id

    @property
    def run(self) -> Path:
        return Path("/run") / self.id

    @property
    def netns(self) -> Path:
        return Path("/run/netns") / self.id

    @property
    def cgroup(self) -> str:
        return f"/{self.id}"

    @property
    def nodes(self) -> list["Node"]:
        count = self.run / "nodes"
        return [Node(self, number) for number in range(int(count.read_text()) if count.exists() else 1)]

    # Where the forwarder on the host's loopback listens. Below the range of ephemeral ports.
    @property
    def preferred_port(self) -> int:
        return 16443 + int(hashlib.sha256(self.id.encode()).hexdigest(), 16) % 10000


@dataclass(frozen=True)
class Node:
    """One kubelet with its containerd. All nodes share the cluster's network namespace: their pods' links and
    kube-proxy's rules are in it. The first one's files are in the cluster's folders, a further one's in folders below."""

    cluster: Layout
    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def ip(self) -> str:
        return f"10.10.0.{self.number + 1}"

    @property
    def pod_cidr(self) -> str:
        return f"10.244.{self.number}.0/24"

    def component(self, what: str) -> str:
        """The name of this node's `containerd` or `kubelet`."""
        return what if self.number == 0 else f"{what}-{self.number}"

    def _below(self, folder: Path) -> Path:
        return folder if self.number == 0 else folder / self.name

    @property
    def data(self) -> Path:
        return self._below(self.cluster.data)

    @property
    def run(self) -> Path:
        return self._below(self.cluster.run)

    @property
    def config(self) -> Path:
        return self._below(self.cluster.config)

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def cgroup(self) -> str:
        return self.cluster.cgroup if self.number == 0 else f"{self.cluster.cgroup}/{self.name}"


def layout(name: str, checkout: Path = CHECKOUT) -> Layout:
    if not re.fullmatch(r"[a-z0-9]{1,12}", name):
        raise SystemExit(f"a cluster's name has 1 to 12 lower-case letters and digits, not '{name}'")
    return Layout(checkout, name)
