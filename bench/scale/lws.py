"""LeaderWorkerSet's controller (sigs.k8s.io/lws): as released, with the rights that its chart gives it.

It makes StatefulSets, and the StatefulSet controller of kube-controller-manager makes the pods from them, so the calls
of both are what it costs. Its webhooks give the pods the labels by which it finds them again.
"""

import json
from pathlib import Path

from localcluster.layout import NODE_IP
from localcluster.processes import Component

from .peer import Peer, webhook_port
from .subject import GROUPS, PODS, has

SETS = ("leaderworkerset.x-k8s.io/v1", "leaderworkersets")


class LeaderWorkerSet(Peer):
    program = "lws"
    title = "LeaderWorkerSet"
    namespace = "lws-system"
    account = "lws-controller-manager"
    service = "lws-webhook-service"
    replicas = ("lws-a", "lws-b")
    resource = SETS
    users = (f"system:serviceaccount:{namespace}:{account}", "system:serviceaccount:kube-system:statefulset-controller")

    def install(self) -> None:
        for definition in sorted((self.charts / "lws/crds").iterdir()):
            self.plane.apply(definition.read_text())
        self.plane.apply(self.render(
            "lws", "rbac/serviceaccount", "rbac/role", "rbac/rolebinding", "rbac/clusterrole",
            "rbac/clusterrolebinding", "webhook/service", "webhook/webhook"))

    def component(self, number: int) -> Component:
        replica = self.replicas[number]
        config = self.plane.cluster.config / f"{replica}.json"
        config.write_text(json.dumps(configuration(number, self.certificates)))
        return Component(replica, [
            str(self.binary), f"--config={config}", f"--kubeconfig={self.kubeconfig}", "--zap-log-level=2"])

    def make(self, namespace: str, name: str) -> dict:
        """Its pods are the smallest that the API server takes."""
        pod = {"containers": [{"name": "worker", "image": "localhost/worker:bench"}]}
        return {
            "apiVersion": SETS[0], "kind": "LeaderWorkerSet", "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": GROUPS, "leaderWorkerTemplate": {"size": PODS, "workerTemplate": {"spec": pod}}}}

    def grown(self) -> dict:
        return {"spec": {"replicas": GROUPS + 1}}

    def is_ready(self, one: dict) -> bool:
        return has(one, "Available")


def configuration(number: int, certificates: Path) -> dict:
    """Of the replica with this number: addresses are its own, the rest is the chart's, with certificates from outside.
    """
    return {
        "apiVersion": "config.lws.x-k8s.io/v1alpha1", "kind": "Configuration",
        "leaderElection": {"leaderElect": True}, "internalCertManagement": {"enable": False},
        "webhook": {"host": NODE_IP, "port": webhook_port(number), "certDir": str(certificates)},
        "metrics": {"bindAddress": f"127.0.0.1:{8443 + number}"},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{8081 + number}"}}
