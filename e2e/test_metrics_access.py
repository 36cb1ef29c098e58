"""Who gets a number of the metrics API: through the API server, and directly with a token, a client certificate or nothing."""

import base64
import json
from pathlib import Path

import pytest
from kubernetes import client
from support.installation import NAMESPACE
from support.wait import until

SERVICE = "deepseek-operator-metrics-api"
PATH = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/dsm_queue_depth?labelSelector=model%3D{}"


class Direct:
    """Asks the operator's own Service, and believes it by the authority that the API server believes it by."""

    def __init__(self, env, folder: Path, path: str):
        self.env, self.folder, self.path = env, folder, path
        core = client.CoreV1Api()
        self.address = core.read_namespaced_service(SERVICE, NAMESPACE).spec.cluster_ip
        secret = core.read_namespaced_secret(f"{SERVICE}-tls", NAMESPACE)
        (folder / "ca.crt").write_bytes(base64.b64decode(secret.data["ca.crt"]))

    def __call__(self, *options: str) -> tuple[int, str]:
        host = f"{SERVICE}.{NAMESPACE}.svc"
        output = self.env.run(*self.env.in_cluster_network(
            "curl", "-sS", "--max-time", "30", "--cacert", str(self.folder / "ca.crt"), "--resolve", f"{host}:443:{self.address}",
            "-w", "\n%{http_code}", *options, f"https://{host}{self.path}")).stdout
        body, _, status = output.rpartition("\n")
        return int(status), body

    def with_token(self, token: str) -> tuple[int, str]:
        return self("-H", f"Authorization: Bearer {token}")

    def with_certificate(self, name: str) -> tuple[int, str]:
        return self("--cert", str(self.folder / f"{name}.crt"), "--key", str(self.folder / f"{name}.key"))

    def make_certificate(self, name: str, group: str) -> None:
        """A client certificate of the cluster's authority, as a person gets one."""
        key, request = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        self.env.run("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/O={group}/CN={name}",
                     "-keyout", str(key), "-out", str(request))
        object_name = f"{name}-{self.path.split('/')[5]}"
        self.env.k("create", "-f", "-", stdin=json.dumps({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": object_name},
            "spec": {"request": base64.b64encode(request.read_bytes()).decode(), "usages": ["client auth"],
                     "signerName": "kubernetes.io/kube-apiserver-client", "expirationSeconds": 3600}}))
        self.env.k("certificate", "approve", object_name)
        signed = until("a signed certificate", lambda: self.env.k(
            "get", "csr", object_name, "-o", "jsonpath={.status.certificate}"), 30)
        (self.folder / f"{name}.crt").write_bytes(base64.b64decode(signed))
        self.env.k("delete", "csr", object_name)


@pytest.fixture
def idle(env, local_only, namespace, make_model, tmp_path):
    """A model whose queue is empty, and who asks about it directly."""
    model = make_model("idle", {"replicas": 1, "parallelism": {"tensor": 1}})
    model.apply()
    model.wait_settled(1)
    path = PATH.format(namespace, model.name)

    def through_the_api_server() -> bool:
        done = env.run(env.kubectl, "get", "--raw", path, check=False)
        return done.returncode == 0 and zero(done.stdout)

    until("a number through the API server", through_the_api_server, 60)
    return Direct(env, tmp_path, path)


def zero(body: str) -> bool:
    return [item["value"] for item in json.loads(body)["items"]] == ["0"]


def may_view(env, namespace: str, name: str, *who: str) -> None:
    env.k("create", "rolebinding", name, "-n", namespace, "--clusterrole=view", *who)


def test_a_token_opens_what_its_account_may_see(env, namespace, idle):
    for name in ("reader", "stranger"):
        env.k("create", "serviceaccount", name, "-n", namespace)
    may_view(env, namespace, "readers", f"--serviceaccount={namespace}:reader")

    def token(name: str, *options: str) -> str:
        return env.k("create", "token", name, "-n", namespace, *options).strip()

    reader = token("reader")
    until("a number for an account that may view", lambda: idle.with_token(reader)[0] == 200, 60)
    assert zero(idle.with_token(reader)[1])
    status, body = idle.with_token(token("stranger"))
    assert status == 403 and f"system:serviceaccount:{namespace}:stranger may not list dsm_queue_depth" in body, body
    # Only the API server is believed about who asks for whom.
    status, body = idle("-H", f"Authorization: Bearer {token('stranger')}", "-H", "X-Remote-User: root",
                        "-H", "X-Remote-Group: system:masters")
    assert status == 403, body
    assert idle.with_token(token("reader", "--audience=somewhere-else"))[0] == 401
    assert idle.with_token(reader[:-8] + "AAAAAAAA")[0] == 401

    # One that is revoked with its account is known for as long as an answer is kept, 10 s.
    env.k("delete", "serviceaccount", "reader", "-n", namespace)
    until("the end of the token", lambda: idle.with_token(reader)[0] == 401, 30)


def test_a_client_certificate_opens_what_its_user_or_group_may_see(env, namespace, idle):
    may_view(env, namespace, "viewers", "--group=viewers")
    idle.make_certificate("jane", "viewers")
    idle.make_certificate("joe", "others")
    until("a number for whose group may view", lambda: idle.with_certificate("jane")[0] == 200, 60)
    assert zero(idle.with_certificate("jane")[1])
    status, body = idle.with_certificate("joe")
    assert status == 403 and "joe may not list dsm_queue_depth" in body, body
    # Of an authority of its own making nobody is anybody.
    env.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/O=system:masters/CN=root",
            "-keyout", str(idle.folder / "root.key"), "-out", str(idle.folder / "root.crt"))
    assert idle.with_certificate("root")[0] == 401


def test_who_shows_nothing_is_nobody(env, namespace, idle):
    status, body = idle()
    assert status == 401 and json.loads(body)["reason"] == "Unauthorized", body
    assert idle("-H", "X-Remote-User: root", "-H", "X-Remote-Group: system:masters")[0] == 401


def test_without_the_api_server_a_token_is_not_called_wrong(env, namespace, idle):
    env.k("create", "serviceaccount", "reader", "-n", namespace)
    token = env.k("create", "token", "reader", "-n", namespace).strip()
    env.ctl("pause", "kube-apiserver")
    try:
        assert idle.with_token(token)[0] == 503
    finally:
        env.ctl("resume", "kube-apiserver")
    until("an answer about the token", lambda: idle.with_token(token)[0] == 403, 60)
