"""LeaderWorkerSet's controller (sigs.k8s.io/lws), the peer: as released, with the rights that its chart gives it.

It makes StatefulSets, and the StatefulSet controller of kube-controller-manager makes the pods from them, so the calls
of both are what it costs. Its webhooks give the pods the labels by which it finds them again, so they are served: the
API server finds the replicas by a Service with EndpointSlices, as in any cluster.
"""

import base64
import json
import shutil
import subprocess
from pathlib import Path

from localcluster import pki, processes
from localcluster.layout import CHECKOUT, NODE_IP
from localcluster.processes import Component
from localcluster.shell import run, wait_for

from .api import Refused, collection
from .control_plane import ControlPlane
from .subject import GROUPS, PODS, has

SETS = ("leaderworkerset.x-k8s.io/v1", "leaderworkersets")
_SERVICE = "lws-webhook-service"
_WEBHOOKS = {"mutatingwebhookconfigurations": "lws-mutating-webhook-configuration",
             "validatingwebhookconfigurations": "lws-validating-webhook-configuration"}
_CANARY = ("default", "canary")


def build() -> Path | None:
    """The folder with the program and its chart; None when it could not be built: why is on standard error then."""
    done = subprocess.run([CHECKOUT / "scripts/go-program", "lws"], stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


class LeaderWorkerSet:
    """As many replicas as its manifests ask for."""

    namespace = "lws-system"
    account = "lws-controller-manager"
    resource = SETS
    users = (f"system:serviceaccount:{namespace}:{account}", "system:serviceaccount:kube-system:statefulset-controller")
    _replicas = ("lws-a", "lws-b")

    def __init__(self, plane: ControlPlane, program: Path, helm: Path):
        self.name = f"LeaderWorkerSet {program.name.removeprefix('lws-')}"  # the folder's name has the version
        self._plane = plane
        self._binary = program / "lws"
        chart = program / "charts/lws"
        plane.namespaces([self.namespace])
        for definition in sorted((chart / "crds").iterdir()):
            plane.apply(definition.read_text())
        # All of the chart but its Deployment and what goes into that: the programs run beside the cluster, not in it.
        parts = [f"--show-only=templates/{part}.yaml" for part in (
            "rbac/serviceaccount", "rbac/role", "rbac/rolebinding", "rbac/clusterrole", "rbac/clusterrolebinding",
            "webhook/service", "webhook/webhook")]
        plane.apply(run(helm, "template", "lws", chart, f"--namespace={self.namespace}", *parts))
        plane.wait_served(SETS)
        self._kubeconfig = plane.kubeconfig_of(self.namespace, self.account)
        self._certificates = self._trusted_certificates()

    def _trusted_certificates(self) -> Path:
        """A certificate for the Service of the webhooks, and its authority told to the API server: what cert-manager
        does for it elsewhere."""
        cluster, api = self._plane.cluster, self._plane.api
        pki.issue_serving(cluster, "lws", f"DNS:{_SERVICE}.{self.namespace}.svc")
        folder = cluster.config / "lws-certificates"
        folder.mkdir(mode=0o700)
        for suffix in ("crt", "key"):
            shutil.copy(cluster.pki / f"lws.{suffix}", folder / f"tls.{suffix}")
        for plural, name in _WEBHOOKS.items():
            path = collection(("admissionregistration.k8s.io/v1", plural), name=name)
            api.call("PUT", path, trusting(api.call("GET", path), (cluster.pki / "ca.crt").read_bytes()))
        return folder

    def start(self) -> None:
        """Returns when a first set was made and became ready."""
        slices = ("discovery.k8s.io/v1", "endpointslices")
        for number, replica in enumerate(self._replicas):
            config = self._plane.cluster.config / f"{replica}.json"
            config.write_text(json.dumps(configuration(number, self._certificates)))
            self._plane.api.call("POST", collection(slices, self.namespace), endpoint(replica, number))
            processes.start(self._plane.cluster, Component(replica, [
                str(self._binary), f"--config={config}", f"--kubeconfig={self._kubeconfig}", "--zap-log-level=2"]))
        self._try_out()

    def _try_out(self) -> None:
        """It does not say when it leads, has its caches and serves its webhooks; that a set becomes ready says it."""
        namespace, name = _CANARY
        api, path = self._plane.api, collection(SETS, namespace, name)

        def created() -> bool:
            try:
                api.call("POST", collection(SETS, namespace), self.make(namespace, name))
            except Refused as why:
                if why.status < 500:
                    raise
                return False  # the API server does not reach the webhooks yet
            return True

        hint = f"see {self._plane.cluster.logs}/{self._replicas[0]}.log"
        wait_for("the admission of a first LeaderWorkerSet", created, 60, hint)
        wait_for("the readiness of a first LeaderWorkerSet", lambda: self.is_ready(api.call("GET", path)), 120, hint)
        api.call("DELETE", path)
        wait_for("the end of the first LeaderWorkerSet's pods", lambda: not api.any(("v1", "pods")), 120, hint)

    def pids(self) -> list[int]:
        return [self._plane.pid(replica) for replica in self._replicas]

    def make(self, namespace: str, name: str) -> dict:
        """Its pods are the smallest that the API server takes."""
        pod = {"containers": [{"name": "worker", "image": "localhost/worker:bench"}]}
        return {
            "apiVersion": SETS[0], "kind": "LeaderWorkerSet", "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": GROUPS, "leaderWorkerTemplate": {"size": PODS, "workerTemplate": {"spec": pod}}}}

    def is_ready(self, one: dict) -> bool:
        return has(one, "Available")


def trusting(webhooks: dict, authority: bytes) -> dict:
    """The configuration of webhooks with the authority that signed their certificate."""
    bundle = base64.b64encode(authority).decode()
    return {**webhooks, "webhooks": [
        {**one, "clientConfig": {**one["clientConfig"], "caBundle": bundle}} for one in webhooks["webhooks"]]}


def configuration(number: int, certificates: Path) -> dict:
    """Of the replica with this number. All share the node's address, so each has ports of its own; the rest is the
    chart's, with certificates from outside."""
    return {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1", "kind": "Configuration",
        "leaderElection": {"leaderElect": True}, "internalCertManagement": {"enable": False},
        "webhook": {"host": NODE_IP, "port": _webhook_port(number), "certDir": str(certificates)},
        "metrics": {"bindAddress": f"127.0.0.1:{8443 + number}"},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{8081 + number}"}}


def endpoint(replica: str, number: int) -> dict:
    """The EndpointSlice by which the Service of the webhooks leads to a replica."""
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": replica, "labels": {"kubernetes.io/service-name": _SERVICE}},
        "addressType": "IPv4", "endpoints": [{"addresses": [NODE_IP]}],
        "ports": [{"name": "", "port": _webhook_port(number), "protocol": "TCP"}]}


def _webhook_port(number: int) -> int:
    return 9443 + number
