"""A DeepSeekTenant in a test."""

import base64
import json

from kubernetes import client

from support.environment import Environment
from support.model import GROUP, VERSION
from support.wait import until

PLURAL = "deepseektenants"
KEYS = "deepseek-api-keys"


def condition_of(tenant: dict, kind: str) -> dict:
    conditions = tenant.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


class Tenant:
    def __init__(self, env: Environment, name: str, spec: dict):
        self.env, self.name = env, name
        self.body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "DeepSeekTenant", "metadata": {"name": name}, "spec": spec}
        self.api = client.CustomObjectsApi()

    def apply(self, check: bool = True):
        return self.env.run(self.env.kubectl, "apply", "-f", "-", stdin=json.dumps(self.body), check=check)

    def patch(self, spec: dict) -> None:
        self.env.k("patch", "dst", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self) -> dict:
        return self.api.get_cluster_custom_object(GROUP, VERSION, PLURAL, self.name)

    def condition(self, kind: str = "Ready") -> dict:
        return condition_of(self.get(), kind)

    def wait_ready(self) -> dict:
        def ready():
            tenant = self.get()
            condition = condition_of(tenant, "Ready")
            current = condition.get("observedGeneration") == tenant["metadata"]["generation"]
            return tenant if current and condition.get("status") == "True" else None

        return until(f"tenant {self.name} ready", ready, 30)

    def delete(self) -> None:
        self.env.k("delete", "dst", self.name, "--ignore-not-found", "--wait=true", "--timeout=30s")

    def set_keys(self, namespace: str, keys: dict[str, str]) -> None:
        """The whole Secret, so that a key that is not named is revoked."""
        data = {name: base64.b64encode(key.encode()).decode() for name, key in keys.items()}
        body = {"metadata": {"name": KEYS}, "data": data}
        core = client.CoreV1Api()
        try:
            core.replace_namespaced_secret(KEYS, namespace, body)
        except client.ApiException as error:
            if error.status != 404:
                raise
            core.create_namespaced_secret(namespace, body)
