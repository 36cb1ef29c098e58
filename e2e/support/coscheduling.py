"""A second scheduler beside the cluster's own: Kubernetes' scheduler with the coscheduling plugin, as it is released, as a
process that reaches the API server by the tests' kubeconfig."""

import json
import subprocess
from pathlib import Path

from kubernetes import client

from support.environment import Environment
from support.installation import NAMESPACE
from support.wait import until

GROUP, VERSION, PLURAL = "scheduling.x-k8s.io", "v1alpha1", "podgroups"
SCHEDULER = "coscheduler"


class Coscheduling:
    def __init__(self, env: Environment, folder: Path):
        self.env, self.folder = env, folder
        self.definition = str(Path(env.coscheduling, f"config/crd/bases/{GROUP}_{PLURAL}.yaml"))
        self.api = client.CustomObjectsApi()
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.env.k("apply", "--server-side", "-f", self.definition)
        until("PodGroups in the API", lambda: self.env.run(
            self.env.kubectl, "get", f"{PLURAL}.{GROUP}", "--all-namespaces", check=False).returncode == 0, 60)
        (self.folder / "config.json").write_text(json.dumps({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {"kubeconfig": self.env.kubeconfig},
            "profiles": [{
                "schedulerName": SCHEDULER,
                "plugins": {
                    "multiPoint": {"enabled": [{"name": "Coscheduling"}]},
                    # The queue has one order: that of groups.
                    "queueSort": {"enabled": [{"name": "Coscheduling"}], "disabled": [{"name": "*"}]}},
            }],
        }), encoding="utf-8")
        with open(self.folder / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [f"{self.env.coscheduling}/coscheduling", f"--config={self.folder}/config.json", "--secure-port=0", "--v=3"],
                stdout=log, stderr=log)
        until("operators that have seen the new kind", self._noticed, 60)
        assert self.process.poll() is None, self.log()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        self.env.k("delete", "-f", self.definition, "--ignore-not-found")

    def log(self) -> str:
        return self._whole_log()[-8000:]

    def tries(self, namespace: str, pod: str) -> tuple[int, int]:
        """How often the scheduler has held a node for the pod, until the others of its group have one, and how often it has
        given it none."""
        lines = [line for line in self._whole_log().splitlines() if f'pod="{namespace}/{pod}"' in line]
        return (sum('"Pod is waiting to be scheduled to node"' in line for line in lines),
                sum('"Unable to schedule pod; no fit; waiting"' in line for line in lines))

    def _whole_log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    def _noticed(self) -> bool:
        """Each replica says so once, without a restart."""
        lines = self.env.k("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=deepseek-operator", "--tail=-1", "--prefix")
        noticed = {line.split("]")[0] for line in lines.splitlines() if '"optional kind is served"' in line}
        pods = client.CoreV1Api().list_namespaced_pod(NAMESPACE, label_selector="app.kubernetes.io/name=deepseek-operator").items
        return {f"[pod/{pod.metadata.name}/operator" for pod in pods} <= noticed

    def pod_groups(self, namespace: str) -> dict[str, int]:
        """How many members each needs, by name."""
        found = self.api.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL)
        return {one["metadata"]["name"]: one["spec"]["minMember"] for one in found["items"]}
