"""A control plane without kubelets: etcd, API server, controller manager, scheduler, and kwok for nodes and pods.

The components of e2e/cluster, started one by one with what a benchmark needs besides: the audit log, and clients
that are not throttled below what two cores can do (by default 20 to 50 requests per second each, which would be the
only thing measured).
"""

import dataclasses
import json
import sys
from pathlib import Path

from localcluster import cleanup, components, network, pki, preflight, processes
from localcluster import cluster as lifecycle
from localcluster.layout import API_PORT, NODE_IP, POD_CIDR, Layout
from localcluster.processes import Component
from localcluster.shell import run, say, wait_for

from .api import Api, Refused, collection

SERVER = f"https://{NODE_IP}:{API_PORT}"
LEADERS_PORT = 8001
_UNTHROTTLED = ["--kube-api-qps=2000", "--kube-api-burst=4000"]
_BENCH = Path(__file__).resolve().parents[1]


class ControlPlane:
    """A running cluster. The calling process is in its network afterwards."""

    def __init__(self, cluster: Layout, programs: Path, audit_policy: dict, nodes: int):
        self.cluster = cluster
        self._kubernetes = lifecycle.programs()
        self._programs = programs
        self.audit_log = cluster.data / "audit.log"
        with lifecycle.locked(cluster):
            preflight.check(cluster)
            cleanup.take_down_orphans()
            if cleanup.exists(cluster):
                cleanup.take_down(cluster)
            lifecycle.prepare(cluster)
            pki.write_kubeconfig(cluster, "admin", SERVER, self._admin)
            policy = cluster.config / "audit.json"
            policy.write_text(json.dumps(audit_policy))
            say(f"starting the control plane of {cluster.id}")
            self._start("etcd")
            self._start("kube-apiserver", f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}",
                        "--audit-log-maxsize=10000")
            self._start("forwarder")  # for a person with kubectl
            wait_for("the API server's readiness", lambda: lifecycle.api_is_ready(cluster), 120,
                     f"see {cluster.logs}/kube-apiserver.log and etcd.log")
            self._start("kube-controller-manager", *_UNTHROTTLED, "--allocate-node-cidrs=false",
                        "--node-monitor-grace-period=1h")  # a late heartbeat of kwok is not what is measured
            self._start("kube-scheduler", *_UNTHROTTLED)
        network.enter(cluster.netns)
        self.api = Api(SERVER, cluster.pki, "admin")
        self._start_nodes(nodes)

    @property
    def _admin(self) -> Path:
        return self.cluster.config / "admin.kubeconfig"

    def _start(self, name: str, *more: str) -> None:
        port = lifecycle.port_of(self.cluster)
        one = components.component(self.cluster, self._kubernetes, port, name)
        processes.start(self.cluster, dataclasses.replace(one, argv=[*one.argv, *more]))

    def _start_nodes(self, count: int) -> None:
        """kwok, the nodes it keeps ready, and the process that speaks for the leaders among its pods."""
        run("ip", "route", "add", "local", POD_CIDR, "dev", "lo")
        processes.start(self.cluster, Component("leaders", [sys.executable, "-m", "scale.leaders", str(LEADERS_PORT)],
                                                env={"PYTHONPATH": str(_BENCH)}))
        processes.start(self.cluster, Component("kwok", [
            f"{self._programs}/kwok", f"--kubeconfig={self._admin}", "--manage-all-nodes=true", f"--cidr={POD_CIDR}",
            f"--node-ip={NODE_IP}", "--node-lease-duration-seconds=40"]))
        nodes = ("v1", "nodes")
        for number in range(count):
            self.api.call("POST", collection(nodes), {
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": f"kwok-{number}"}})
        wait_for("the readiness of kwok's nodes", lambda: all(map(_is_usable, self.api.items(nodes))), 120,
                 f"see {self.cluster.logs}/kwok.log")

    def pid(self, name: str) -> int:
        pid = processes.pid_of(self.cluster, name)
        if pid is None:
            raise RuntimeError(f"{name} does not run any more: see {self.cluster.logs}/{name}.log")
        return pid

    def apply(self, manifests: str, namespace: str = "") -> None:
        """YAML as `kubectl apply` takes it, which with a namespace is for objects that name this one or none."""
        kubectl = (f"{self._kubernetes}/kubectl", f"--kubeconfig={self._admin}")
        where = (f"--namespace={namespace}",) if namespace else ()
        run(*kubectl, *where, "apply", "--server-side", "-f", "-", stdin=manifests)

    def namespaces(self, names: list[str]) -> None:
        for name in names:
            self.api.call("POST", collection(("v1", "namespaces")),
                          {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def remove_namespaces(self, names: list[str], limit: float) -> None:
        """With all that is in them."""
        namespaces = ("v1", "namespaces")
        say(f"removing {len(names)} namespaces with all that is in them")
        for name in names:
            self.api.call("DELETE", collection(namespaces, name=name))
        wait_for("the end of the namespaces",
                 lambda: not {one["metadata"]["name"] for one in self.api.items(namespaces)} & set(names), limit)

    def kubeconfig_of(self, namespace: str, account: str) -> Path:
        """Of a service account, with a token for a day."""
        where = self.cluster.config / f"{account}.kubeconfig"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": SERVER, "certificate-authority": str(self.cluster.pki / "ca.crt")}}],
            "users": [{"name": "it", "user": {"token": self.api.token(namespace, account)}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": namespace}}]}
        where.touch(mode=0o600)
        where.write_text(json.dumps(config))
        return where

    def wait_served(self, resource: tuple[str, str]) -> None:
        """A CustomResourceDefinition is served a moment after it was made."""
        def served() -> bool:
            try:
                self.api.items(resource)
            except Refused:
                return False
            return True

        wait_for(f"the API server's {resource[1]}", served, 30)


def _is_usable(node: dict) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not node["spec"].get("taints")
