"""Kueue as it is released, beside the cluster: its controller runs as a process in the cluster's network, and its webhooks
answer for one namespace alone.

The program is linked statically and looks for files at fixed paths, so the folder that it is given is its root.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import yaml
from kubernetes import client

from support.environment import Environment
from support.wait import until

NODE_IP = "10.10.0.1"  # of the local cluster's first node
API_PORT, WEBHOOK_PORT, HEALTH_PORT, METRICS_PORT = 6443, 9443, 8091, 8092
GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"
CPU_FLAVOR = "default"


class Kueue:
    def __init__(self, env: Environment, namespace: str, root: Path):
        self.env, self.namespace, self.root = env, namespace, root
        self.config = Path(env.kueue, "config/components")
        self.api = client.CustomObjectsApi()
        self.process: subprocess.Popen | None = None
        self.webhooks: list[tuple[str, str]] = []  # kind and name

    def start(self) -> None:
        self.env.k("apply", "--server-side", "-f", str(self.config / "crd/bases"))
        until("Kueue's definitions in the API", self._defined, 60)
        authority = self._make_root()
        command = self.env.in_cluster_network("chroot", str(self.root), "/kueue", "--config=/config.json", "--zap-log-level=2")
        with open(self.root / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "KUBECONFIG": "/kubeconfig"})
        until("a Kueue that is ready", self._ready, 60)
        self._register(authority)

    def stop(self) -> None:
        """The webhooks first: while they are registered and nobody answers, no pod of the namespace can be made."""
        for kind, name in self.webhooks:
            self.env.k("delete", kind, name, "--ignore-not-found")
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def log(self) -> str:
        return (self.root / "log").read_text(encoding="utf-8")[-8000:]

    def _defined(self) -> bool:
        """Asked one by one: kubectl wait fails on a definition that has no conditions yet."""
        return all(self.env.run(self.env.kubectl, "get", plural, "--all-namespaces", check=False).returncode == 0
                   for plural in (f"workloads.{GROUP}", f"clusterqueues.{GROUP}", f"localqueues.{GROUP}"))

    def _ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()
        probe = self.env.in_cluster_network("curl", "-sf", f"http://{NODE_IP}:{HEALTH_PORT}/readyz")
        return self.env.run(*probe, check=False).returncode == 0

    def _make_root(self) -> bytes:
        """Everything that the program opens; answers with the certificate by which its webhooks are believed."""
        webhook, metrics = self.root / "certificates", self.root / "etc/kueue/metrics/certs"
        for folder in (webhook, metrics, self.root / "tmp"):
            folder.mkdir(parents=True)
        shutil.copy(Path(self.env.kueue, "kueue"), self.root)
        self.env.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kueue",
                     "-addext", f"subjectAltName=IP:{NODE_IP}", "-keyout", str(webhook / "tls.key"),
                     "-out", str(webhook / "tls.crt"))
        shutil.copytree(webhook, metrics, dirs_exist_ok=True)
        kubeconfig = yaml.safe_load(self.env.k("config", "view", "--raw", "--flatten"))
        for cluster in kubeconfig["clusters"]:
            cluster["cluster"]["server"] = f"https://{NODE_IP}:{API_PORT}"
        (self.root / "kubeconfig").write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
        (self.root / "config.json").write_text(json.dumps({
            "apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"{NODE_IP}:{HEALTH_PORT}"},
            "metrics": {"bindAddress": f"{NODE_IP}:{METRICS_PORT}"},
            "webhook": {"host": NODE_IP, "port": WEBHOOK_PORT, "certDir": "/certificates"},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "integrations": {"frameworks": ["pod"]},
            "managedJobsNamespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "featureGates": {"VisibilityOnDemand": False},
        }), encoding="utf-8")
        return (webhook / "tls.crt").read_bytes()

    def _register(self, authority: bytes) -> None:
        """Its webhooks of pods and of its own kinds, at the address of the process instead of a Service."""
        for document in yaml.safe_load_all((self.config / "webhook/manifests.yaml").read_text(encoding="utf-8")):
            document["metadata"]["name"] = "kueue-" + document["metadata"]["name"]
            document["webhooks"] = [w for w in document["webhooks"]
                                    if {g for rule in w["rules"] for g in rule["apiGroups"]} <= {"", GROUP}]
            for webhook in document["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://{NODE_IP}:{WEBHOOK_PORT}{path}",
                                           "caBundle": base64.b64encode(authority).decode()}
                if "pods" in webhook["rules"][0]["resources"]:
                    webhook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
            self.webhooks.append((document["kind"], document["metadata"]["name"]))
            self.env.k("apply", "-f", "-", stdin=json.dumps(document))

    def make_queue(self, name: str, cpu: str) -> None:
        """A LocalQueue of the namespace and a ClusterQueue behind it, with so much of the CPU and plenty of memory."""
        quota = [{"name": "cpu", "nominalQuota": cpu}, {"name": "memory", "nominalQuota": "1Ti"}]
        self._apply("ResourceFlavor", CPU_FLAVOR, {})
        self._apply("ClusterQueue", name, {
            "namespaceSelector": {}, "queueingStrategy": "BestEffortFIFO", "resourceGroups": [{
                "coveredResources": ["cpu", "memory"], "flavors": [{"name": CPU_FLAVOR, "resources": quota}]}]})
        self._apply("LocalQueue", name, {"clusterQueue": name}, self.namespace)

    def hold(self, name: str, policy: str) -> None:
        """`HoldAndDrain` evicts what the queue has admitted and admits nothing more; `None` ends that."""
        self.env.k("patch", "clusterqueue", name, "--type=merge", "-p", json.dumps({"spec": {"stopPolicy": policy}}))

    def workloads(self) -> list[str]:
        found = self.api.list_namespaced_custom_object(GROUP, VERSION, self.namespace, "workloads")
        return sorted(one["metadata"]["name"] for one in found["items"])

    def remove_queue(self, name: str) -> None:
        self.env.k("delete", "localqueue", name, "-n", self.namespace, "--ignore-not-found")
        self.env.k("delete", "clusterqueue", name, "--ignore-not-found")
        self.env.k("delete", "resourceflavor", CPU_FLAVOR, "--ignore-not-found")

    def _apply(self, kind: str, name: str, spec: dict, namespace: str | None = None) -> None:
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}
        self.env.k("apply", "-f", "-", stdin=json.dumps(body))
