"""A DeepSeekModel in a test: made from examples/deepseek-tiny.yaml, watched through the Kubernetes client."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import yaml
from kubernetes import client

from support.environment import ROOT, Environment
from support.wait import until

GROUP, VERSION, PLURAL = "deepseek-operator.io", "v1alpha1", "deepseekmodels"


def example() -> dict:
    return yaml.safe_load(Path(ROOT, "examples", "deepseek-tiny.yaml").read_text())


def merge(base: dict, patch: dict) -> dict:
    """JSON merge patch (RFC 7386)."""
    out = copy.deepcopy(base)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merge(out[key], value)
        else:
            out[key] = value
    return out


class Model:
    def __init__(self, env: Environment, namespace: str, name: str, spec: dict | None = None):
        self.env, self.namespace, self.name = env, namespace, name
        self.body = merge(example(), {"metadata": {"name": name, "namespace": namespace}, "spec": spec or {}})
        self.api = client.CustomObjectsApi()
        self.core = client.CoreV1Api()

    def apply(self, check: bool = True):
        return self.env.run(self.env.kubectl, "apply", "-n", self.namespace, "-f", "-",
                            stdin=json.dumps(self.body), check=check)

    def get(self) -> dict:
        return self.api.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, self.name)

    def patch_spec(self, spec: dict) -> None:
        self.body = merge(self.body, {"spec": spec})
        self.env.k("patch", "dsm", self.name, "-n", self.namespace, "--type=merge", "-p", json.dumps({"spec": spec}))

    def scale(self, replicas: int) -> None:
        self.env.k("scale", "dsm", self.name, "-n", self.namespace, f"--replicas={replicas}")

    def condition(self, kind: str) -> dict:
        for condition in self.get().get("status", {}).get("conditions", []):
            if condition["type"] == kind:
                return condition
        return {}

    def pods(self) -> list:
        return self.core.list_namespaced_pod(
            self.namespace, label_selector=f"deepseek-operator.io/model={self.name}").items

    def settled(self, groups: int) -> bool:
        """Ready at the current generation with exactly so many groups, on one revision, and nothing else running."""
        model = self.get()
        status = model.get("status", {})
        ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
        tensor = model["spec"]["parallelism"]["tensor"]
        on_gpus = model["spec"]["accelerator"]["resource"] != "cpu"
        per_group = tensor // model["spec"]["parallelism"].get("ranksPerPod", tensor if on_gpus else 1)
        return (ready.get("status") == "True"
                and ready.get("observedGeneration") == model["metadata"]["generation"]
                and status.get("readyReplicas") == groups
                and status.get("currentRevision") == status.get("updatedRevision")
                and len(self.pods()) == groups * per_group)

    def wait(self, what: str, probe: Callable[[], object], timeout: float) -> None:
        """until() that says at its end how the model and its pods are."""
        try:
            until(what, probe, timeout)
        except TimeoutError as error:
            state = json.dumps(self.get().get("status", {}), indent=1)
            pods = self.env.k("get", "pods", "-n", self.namespace, "-o", "wide")
            events = self.env.k("get", "events", "-n", self.namespace, "--sort-by=.lastTimestamp")
            raise TimeoutError(f"{error}\n{state}\n{pods}\n{events}") from error

    def wait_settled(self, groups: int, timeout: float = 240) -> dict:
        self.wait(f"{groups} settled groups of {self.name}", lambda: self.settled(groups), timeout)
        return self.get()

    def wait_told(self, words: str, timeout: float = 120) -> None:
        """Waits until a condition says what is wrong in these words."""
        self.wait(f"a condition that says {words}", lambda: any(
            words in c.get("message", "") for c in self.get().get("status", {}).get("conditions", [])
            if c["type"] in ("Ready", "Degraded")), timeout)

    def service_url(self) -> str:
        service = self.core.read_namespaced_service(self.name, self.namespace)
        return f"http://{service.spec.cluster_ip}:{service.spec.ports[0].port}/v1"

    def delete(self) -> None:
        self.env.k("delete", "dsm", self.name, "-n", self.namespace, "--wait=true", "--timeout=120s")
