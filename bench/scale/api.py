"""Requests to the API server: JSON in, JSON out, connections kept. Threads may share an Api."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import urllib3

MODELS = ("deepseek-operator.io/v1alpha1", "deepseekmodels")


def collection(resource: tuple[str, str], namespace: str = "", name: str = "") -> str:
    """The path of a resource: of all its objects, of those of a namespace, or of one."""
    version, plural = resource
    root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}" + (f"/{name}" if name else "")


class Refused(Exception):
    def __init__(self, status: int, text: str):
        super().__init__(f"the API server answered {status}: {text}")
        self.status = status


class Api:
    def __init__(self, server: str, pki: Path, user: str):
        self._server = server
        self._http = urllib3.PoolManager(
            maxsize=16, retries=False, timeout=120, cert_file=str(pki / f"{user}.crt"),
            key_file=str(pki / f"{user}.key"), ca_certs=str(pki / "ca.crt"))

    def call(self, method: str, path: str, body: dict | None = None, content_type: str = "application/json") -> dict:
        answer = self._http.request(method, self._server + path, body=None if body is None else json.dumps(body),
                                    headers={"Content-Type": content_type})
        if answer.status >= 400:
            raise Refused(answer.status, answer.data.decode(errors="replace")[:500])
        return json.loads(answer.data)

    def items(self, resource: tuple[str, str]) -> list[dict]:
        return self.call("GET", collection(resource))["items"]

    def any(self, resource: tuple[str, str]) -> bool:
        return bool(self.call("GET", collection(resource) + "?limit=1")["items"])

    def create_all(self, resource: tuple[str, str], objects: list[dict]) -> None:
        """As fast as eight clients can."""
        def create(one: dict) -> None:
            self.call("POST", collection(resource, one["metadata"]["namespace"]), one)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(create, objects))

    def merge(self, resource: tuple[str, str], namespace: str, name: str, patch: dict) -> None:
        self.call("PATCH", collection(resource, namespace, name), patch, "application/merge-patch+json")

    def token(self, namespace: str, account: str) -> str:
        path = collection(("v1", "serviceaccounts"), namespace, account) + "/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        return self.call("POST", path, body)["status"]["token"]
