"""deepseek-operator: the release build, with the rights that the chart gives it."""

import signal
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from localcluster import processes
from localcluster.layout import CHECKOUT
from localcluster.processes import Component
from localcluster.shell import run, wait_for

from .api import MODELS
from .control_plane import LEADERS_PORT, ControlPlane
from .subject import GROUPS, PODS, has

_IMAGE = "localhost/deepseek-worker:bench"


@dataclass(frozen=True)
class Lease:
    """Seconds; the defaults are the chart's."""

    duration: float = 15
    renew_deadline: float = 10
    retry_period: float = 2


class Operator:
    """Replicas of it: `start` them."""

    name = "deepseek-operator"
    namespace = "deepseek-system"
    resource = MODELS
    users = (f"system:serviceaccount:{namespace}:{name}",)

    def __init__(self, plane: ControlPlane, binary: Path, helm: Path):
        self._plane = plane
        self._binary = binary
        self._replicas: dict[str, int] = {}  # name -> port of its metrics and health
        plane.namespaces([self.namespace])
        # All of the chart but its Deployment: the programs run beside the cluster, not in it.
        parts = [f"--show-only=templates/{part}.yaml" for part in ("crds", "serviceaccount", "rbac")]
        plane.apply(run(helm, "template", self.name, CHECKOUT / "charts/deepseek-operator",
                        f"--namespace={self.namespace}", *parts))
        plane.wait_served(MODELS)
        self._kubeconfig = plane.kubeconfig_of(self.namespace, self.name)

    def start(self, replica: str, lease: Lease) -> None:
        """Returns at once: `wait_synced` waits."""
        port = self._replicas.setdefault(replica, 9090 + len(self._replicas))
        processes.start(self._plane.cluster, Component(f"operator-{replica}", [
            str(self._binary), f"--kubeconfig={self._kubeconfig}", f"--worker-image={_IMAGE}", f"--identity={replica}",
            f"--worker-status-port={LEADERS_PORT}", "--listen=127.0.0.1", f"--port={port}",
            f"--lease-duration={lease.duration}", f"--lease-renew-deadline={lease.renew_deadline}",
            f"--lease-retry-period={lease.retry_period}"]))

    def stop(self, replica: str, how: signal.Signals = signal.SIGTERM) -> None:
        processes.stop(self._plane.cluster, f"operator-{replica}", how)

    def pid(self, replica: str) -> int:
        return self._plane.pid(f"operator-{replica}")

    def pids(self) -> list[int]:
        return [self.pid(replica) for replica in sorted(self._replicas)]

    def leader(self) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{self.name}"
        return self._plane.api.call("GET", path)["spec"].get("holderIdentity", "")

    def is_synced(self, replica: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._replicas[replica]}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_synced(self, replica: str) -> None:
        wait_for(f"the caches of operator-{replica}", lambda: self.is_synced(replica), 120,
                 f"see {self._plane.cluster.logs}/operator-{replica}.log")

    def metric(self, replica: str, name: str) -> float:
        """The sum over the label values of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._replicas[replica]}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def make(self, namespace: str, name: str) -> dict:
        return {
            "apiVersion": MODELS[0], "kind": "DeepSeekModel", "metadata": {"name": name, "namespace": namespace},
            "spec": {"model": {"uri": "image:///models/deepseek-tiny"}, "replicas": GROUPS,
                     "parallelism": {"tensor": PODS, "ranksPerPod": 1}}}

    def grown(self) -> dict:
        return {"spec": {"replicas": GROUPS + 1}}

    def is_ready(self, one: dict) -> bool:
        return has(one, "Ready")
