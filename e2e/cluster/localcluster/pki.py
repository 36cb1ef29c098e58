"""Certificates and kubeconfigs of a throw-away cluster, by openssl, made anew at each start."""

import base64
from pathlib import Path

from .layout import API_PORT, API_SERVICE_IP, NODE_IP, Layout
from .shell import run

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

# File name -> subject. The API server reads user and groups from it.
CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "coredns": "/CN=system:coredns",
    "kube-router": "/CN=system:kube-router",
    "apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
}

SERVING_NAMES = (
    f"IP:127.0.0.1,IP:{NODE_IP},IP:{API_SERVICE_IP},DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,"
    "DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
)


def _authority(folder: Path, name: str) -> None:
    run("openssl", "req", "-x509", *_NEW_KEY, "-days", "3650", "-subj", f"/CN={name}",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


def _signed(folder: Path, name: str, subject: str, authority: str, usage: str, names: str = "") -> None:
    extensions = ["-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE"]
    if names:
        extensions += ["-addext", f"subjectAltName={names}"]
    run("openssl", "req", "-x509", *_NEW_KEY, "-days", "3650", "-subj", subject, *extensions,
        "-CA", folder / f"{authority}.crt", "-CAkey", folder / f"{authority}.key",
        "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


def create(cluster: Layout) -> None:
    folder = cluster.pki
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    _authority(folder, "ca")
    _authority(folder, "front-proxy-ca")
    _signed(folder, "apiserver", "/CN=kube-apiserver", "ca", "serverAuth", SERVING_NAMES)
    _signed(folder, "front-proxy-client", "/CN=front-proxy-client", "front-proxy-ca", "clientAuth")
    kubelets = {node.component("kubelet"): f"/O=system:nodes/CN=system:node:{node.name}" for node in cluster.nodes}
    for name, subject in {**CLIENTS, **kubelets}.items():
        _signed(folder, name, subject, "ca", "clientAuth")
    run("openssl", "genrsa", "-out", folder / "sa.key", "2048")
    run("openssl", "rsa", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")


def issue_serving(cluster: Layout, name: str, names: str) -> None:
    """A certificate for a server besides the cluster's own; `names` as in SERVING_NAMES."""
    _signed(cluster.pki, name, f"/CN={name}", "ca", "serverAuth", names)


def write_kubeconfig(cluster: Layout, user: str, server: str, where: Path) -> None:
    def inline(name: str) -> str:
        return base64.b64encode((cluster.pki / name).read_bytes()).decode()

    where.parent.mkdir(parents=True, exist_ok=True)
    where.touch(mode=0o600)
    where.write_text(f"""\
apiVersion: v1
kind: Config
clusters:
- name: {cluster.id}
  cluster:
    server: {server}
    certificate-authority-data: {inline("ca.crt")}
users:
- name: {user}
  user:
    client-certificate-data: {inline(f"{user}.crt")}
    client-key-data: {inline(f"{user}.key")}
contexts:
- name: {cluster.id}
  context: {{cluster: {cluster.id}, user: {user}}}
current-context: {cluster.id}
""")


def write_component_kubeconfigs(cluster: Layout) -> None:
    kubelets = [node.component("kubelet") for node in cluster.nodes]
    for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "kube-router", *kubelets):
        write_kubeconfig(cluster, user, f"https://{NODE_IP}:{API_PORT}", cluster.config / f"{user}.kubeconfig")
