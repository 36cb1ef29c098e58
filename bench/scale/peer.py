"""What the peers have in common: released controllers, built from their Go modules and installed by their own charts.

Their programs run beside the cluster, not in it. The API server finds their webhooks by a Service with EndpointSlices,
as in any cluster, and trusts the certificate that is made for them here: what cert-manager does elsewhere.
"""

import base64
import shutil
import subprocess
from abc import abstractmethod
from pathlib import Path

from localcluster import pki, processes
from localcluster.layout import CHECKOUT, NODE_IP
from localcluster.processes import Component
from localcluster.shell import run, wait_for

from .api import Refused, collection
from .control_plane import ControlPlane
from .subject import Subject

_SLICES = ("discovery.k8s.io/v1", "endpointslices")
_WEBHOOKS = tuple(("admissionregistration.k8s.io/v1", plural) for plural in (
    "mutatingwebhookconfigurations", "validatingwebhookconfigurations"))
_CANARY = ("default", "canary")


class Peer(Subject):
    """Somebody else's operator: a class for each says what differs."""

    program: str  # as scripts/go-program calls it
    title: str
    namespace: str
    account: str
    service: str  # of its webhooks
    replicas: tuple[str, ...]  # as many as its manifests ask for

    @classmethod
    def build(cls) -> Path | None:
        """The folder with the program and its charts; None when it could not be built: why is on standard error then.
        """
        done = subprocess.run([CHECKOUT / "scripts/go-program", cls.program], stdout=subprocess.PIPE, text=True)
        return Path(done.stdout.strip()) if done.returncode == 0 else None

    def __init__(self, plane: ControlPlane, folder: Path, helm: Path):
        self.name = f"{self.title} {folder.name.removeprefix(self.program + '-')}"  # the folder's name has the version
        self.plane = plane
        self.binary = folder / self.program
        self.charts = folder / "charts"
        self._helm = helm
        plane.namespaces([self.namespace])
        self.install()
        plane.wait_served(self.resource)
        self.kubeconfig = plane.kubeconfig_of(self.namespace, self.account)
        self._issue_certificate()
        for path, configuration in self._webhooks():
            plane.api.call("PUT", path, trusting(configuration, (plane.cluster.pki / "ca.crt").read_bytes()))

    @abstractmethod
    def install(self) -> None:
        """Definitions, rights, webhooks and settings, but no Deployment."""

    @abstractmethod
    def component(self, number: int) -> Component:
        """The replica with this number. All share the node's address, so each has ports of its own."""

    def render(self, chart: str, *parts: str, values: tuple[str, ...] = ()) -> str:
        """Templates of one of its charts as manifests."""
        return run(self._helm, "template", self.program, self.charts / chart, f"--namespace={self.namespace}",
                   *(f"--show-only=templates/{part}.yaml" for part in parts), *(f"--set={value}" for value in values))

    @property
    def temporary(self) -> Path:
        """The TMPDIR below which a program finds `certificates` that it cannot be told."""
        return self.plane.cluster.config / self.program

    @property
    def certificates(self) -> Path:
        return self.temporary / "k8s-webhook-server/serving-certs"

    def _issue_certificate(self) -> None:
        cluster = self.plane.cluster
        pki.issue_serving(cluster, self.program, f"DNS:{self.service}.{self.namespace}.svc")
        self.certificates.mkdir(mode=0o700, parents=True)
        for suffix in ("crt", "key"):
            shutil.copy(cluster.pki / f"{self.program}.{suffix}", self.certificates / f"tls.{suffix}")

    def _webhooks(self) -> list[tuple[str, dict]]:
        """The configurations by which the API server asks it, with their paths."""
        return [(collection(resource, name=one["metadata"]["name"]), one)
                for resource in _WEBHOOKS for one in self.plane.api.items(resource) if asks(one, self.namespace)]

    def start(self) -> None:
        """Returns when a first object was made and became ready."""
        for number, replica in enumerate(self.replicas):
            slice_ = endpoint(self.service, replica, webhook_port(number))
            self.plane.api.call("POST", collection(_SLICES, self.namespace), slice_)
            processes.start(self.plane.cluster, self.component(number))
        self._try_out()

    def stop(self) -> None:
        """The API server does not ask its webhooks any more, either."""
        for path, _ in self._webhooks():
            self.plane.api.call("DELETE", path)
        for replica in self.replicas:
            processes.stop(self.plane.cluster, replica)

    def _try_out(self) -> None:
        """It does not say when it leads, has its caches and serves its webhooks; that an object becomes ready says it.
        """
        namespace, name = _CANARY
        api, path = self.plane.api, collection(self.resource, namespace, name)

        def created() -> bool:
            try:
                api.call("POST", collection(self.resource, namespace), self.make(namespace, name))
            except Refused as why:
                if why.status < 500:
                    raise
                return False  # the API server does not reach the webhooks yet
            return True

        what = f"first object of {self.title}"
        hint = f"see {self.plane.cluster.logs}/{self.replicas[0]}.log"
        wait_for(f"the admission of a {what}", created, 60, hint)
        wait_for(f"the readiness of a {what}", lambda: self.is_ready(api.call("GET", path)), 120, hint)
        api.call("DELETE", path)
        wait_for(f"the end of the pods of the {what}", lambda: not api.any(("v1", "pods")), 120, hint)

    def pids(self) -> list[int]:
        return [self.plane.pid(replica) for replica in self.replicas]


def asks(configuration: dict, namespace: str) -> bool:
    """Whether webhooks of a configuration are served in the namespace."""
    return any(one["clientConfig"].get("service", {}).get("namespace") == namespace
               for one in configuration.get("webhooks", []))


def trusting(configuration: dict, authority: bytes) -> dict:
    """The configuration of webhooks with the authority that signed their certificate."""
    bundle = base64.b64encode(authority).decode()
    return {**configuration, "webhooks": [
        {**one, "clientConfig": {**one["clientConfig"], "caBundle": bundle}} for one in configuration["webhooks"]]}


def endpoint(service: str, replica: str, port: int) -> dict:
    """The EndpointSlice by which the Service of the webhooks leads to a replica."""
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": replica, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": [{"addresses": [NODE_IP]}],
        "ports": [{"name": "", "port": port, "protocol": "TCP"}]}


def webhook_port(number: int) -> int:
    """Of the replica with this number."""
    return 9443 + number
