"""Bringing a cluster up: in what order, and what is waited for."""

import fcntl
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

from . import cgroups, cleanup, components, images, network, pki, preflight, processes
from .layout import CHECKOUT, NODE_IP, Layout, Node
from .shell import Failure, say, succeeds, wait_for

_CLUSTER_DIR = Path(__file__).resolve().parents[1]


@contextmanager
def locked(cluster: Layout):
    """One `up`, `down` or `ctl` at a time that changes this cluster."""
    cluster.local.mkdir(parents=True, exist_ok=True)
    with open(cluster.local / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that changes this cluster")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def programs() -> Path:
    """The folder of the Go programs, built at the first time. Progress goes to our standard error."""
    done = subprocess.run([_CLUSTER_DIR / "binaries"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure("the cluster's programs could not be built; the messages are above")
    return Path(done.stdout.strip().splitlines()[-1])


def kubectl(cluster: Layout, where: Path, *argv: object) -> tuple[str, ...]:
    return (f"{where}/kubectl", f"--kubeconfig={cluster.kubeconfig}", "--request-timeout=5s", *map(str, argv))


def port_of(cluster: Layout) -> int:
    return int((cluster.run / "port").read_text())


def is_running(cluster: Layout) -> bool:
    return (all(processes.pid_of(cluster, name) for name in components.names(cluster))
            and (cluster.run / "complete").exists()
            and cluster.kubeconfig.exists()
            and succeeds(*kubectl(cluster, programs(), "get", "--raw", "/readyz")))


def start(cluster: Layout, name: str) -> None:
    processes.start(cluster, components.component(cluster, programs(), port_of(cluster), name))


def api_is_ready(cluster: Layout) -> bool:
    return succeeds(*kubectl(cluster, programs(), "get", "--raw", "/readyz"))


def up(cluster: Layout, nodes: int) -> None:
    preflight.need_root()
    with locked(cluster):
        if is_running(cluster):
            if len(cluster.nodes) != nodes:
                raise Failure(f"the cluster {cluster.id} runs with {len(cluster.nodes)} nodes, not {nodes}: "
                              f"take it down first (e2e/cluster/down --name {cluster.name})")
            say(f"the cluster {cluster.id} is running already")
            return
        preflight.check(cluster)
        where = programs()
        cleanup.take_down_orphans()
        if cleanup.exists(cluster):
            say("removing what an earlier run left behind")
            cleanup.take_down(cluster)
        prepare(cluster, nodes)
        say(f"starting the control plane of {cluster.id}")
        for name in ("etcd", "containerd", "kube-apiserver", "forwarder"):
            start(cluster, name)
        wait_for("the API server's readiness", lambda: api_is_ready(cluster), 120,
                 f"see {cluster.logs}/kube-apiserver.log and etcd.log")
        say("starting the node" if nodes == 1 else f"starting {nodes} nodes")
        for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
            start(cluster, name)
        for node in cluster.nodes:
            _start_containerd(cluster, node)
        images.load_pause(cluster)
        with _kernel_settings_kept():
            for node in cluster.nodes:
                start(cluster, node.component("kubelet"))
            for manifest in ("coredns.yaml", "kube-router.yaml"):
                _apply(cluster, where, manifest)
            start(cluster, "coredns")
            _wait_until_usable(cluster, where)
        (cluster.run / "complete").touch()
        say(f"the cluster {cluster.id} is ready: export KUBECONFIG={cluster.kubeconfig}")


def _start_containerd(cluster: Layout, node: Node) -> None:
    name = node.component("containerd")
    start(cluster, name)
    wait_for(f"the start of {name}", lambda: succeeds("ctr", "-a", node.containerd_socket, "version"), 60,
             f"see {cluster.logs}/{name}.log")


def prepare(cluster: Layout, nodes: int = 1) -> None:
    cluster.data.mkdir(parents=True)
    cluster.run.mkdir(parents=True)
    (cluster.run / "nodes").write_text(str(nodes))
    for node in cluster.nodes:
        node.data.mkdir(exist_ok=True)
        node.run.mkdir(exist_ok=True)
    (cluster.data / "checkout").write_text(str(CHECKOUT))
    for log in cluster.logs.glob("*.log"):
        log.unlink()
    port = preflight.choose_port(cluster)
    (cluster.run / "port").write_text(str(port))
    for node in cluster.nodes:
        cgroups.create(node.cgroup)
    network.create(cluster)
    pki.create(cluster)
    pki.write_component_kubeconfigs(cluster)
    pki.write_kubeconfig(cluster, "admin", f"https://127.0.0.1:{port}", cluster.kubeconfig)
    components.write_configs(cluster)


def _apply(cluster: Layout, where: Path, manifest: str) -> None:
    # RBAC is filled by the API server itself a moment after it is ready, so it may refuse at first.
    wait_for(f"applying {manifest}",
             lambda: succeeds(*kubectl(cluster, where, "apply", "-f", _CLUSTER_DIR / "manifests" / manifest)), 30)


def _wait_until_usable(cluster: Layout, where: Path) -> None:
    nodes = [f"node/{node.name}" for node in cluster.nodes]
    wait_for("the nodes' readiness", lambda: succeeds(
        *kubectl(cluster, where, "wait", "--for=condition=Ready", *nodes, "--timeout=2s")), 120,
        f"see kubelet*.log and containerd*.log in {cluster.logs}")
    wait_for("the default service account", lambda: succeeds(
        *kubectl(cluster, where, "get", "serviceaccount", "default", "-n", "default")), 60,
        f"see {cluster.logs}/kube-controller-manager.log")
    wait_for("CoreDNS", lambda: succeeds(
        "nsenter", f"--net={cluster.netns}", "curl", "-sf", f"http://{NODE_IP}:8181/ready"), 60,
        f"see {cluster.logs}/coredns.log")


@contextmanager
def _kernel_settings_kept():
    """kubelet sets these for the whole machine when it starts; they are put back when it has."""
    settings = [Path("/proc/sys") / p for p in (
        "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")]
    before = {path: path.read_text() for path in settings if path.exists()}
    try:
        yield
    finally:
        for path, value in before.items():
            if path.read_text() != value and os.access(path, os.W_OK):
                path.write_text(value)


def down(cluster: Layout) -> None:
    preflight.need_root()
    with locked(cluster):
        cleanup.take_down_orphans()
        if cleanup.exists(cluster):
            cleanup.take_down(cluster)
            say(f"the cluster {cluster.id} is gone; its logs stay in {cluster.logs}")
        else:
            say(f"there is no cluster {cluster.id}")
