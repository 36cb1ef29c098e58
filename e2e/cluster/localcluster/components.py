"""The command line of every component, and the configuration files that they read.

What is unusual is said where it is; the rest is what any installation writes.
"""

import json
import sys
from pathlib import Path

from .cgroups import unified
from .layout import API_PORT, DNS_IP, MOST_NODES, NODE_IP, PAUSE_IMAGE, POD_CIDR, SERVICE_CIDR, Layout, Node
from .processes import Component

# Of a cluster with one node.
NAMES = ("etcd", "containerd", "kube-apiserver", "forwarder", "kube-controller-manager", "kube-scheduler",
         "kube-proxy", "coredns", "kubelet")

# Only where somebody starts it: it makes NetworkPolicies true, which else nobody does.
ON_DEMAND = ("kube-router",)

# Of any cluster.
ALL_NAMES = (*NAMES, *(f"{what}-{number}" for number in range(1, MOST_NODES) for what in ("containerd", "kubelet")),
             *ON_DEMAND)

_CLUSTER_DIR = Path(__file__).resolve().parents[1]


def names(cluster: Layout) -> list[str]:
    return [*NAMES, *(node.component(what) for node in cluster.nodes[1:] for what in ("containerd", "kubelet"))]


def component(cluster: Layout, programs: Path, port: int, name: str) -> Component:
    for node in cluster.nodes:
        if name == node.component("containerd"):
            return _containerd(node)
        if name == node.component("kubelet"):
            return _kubelet(node, programs)
    make = globals()["_" + name.replace("-", "_")]
    return make(cluster, programs, port)


def _etcd(cluster: Layout, programs: Path, _port: int) -> Component:
    return Component("etcd", [
        f"{programs}/etcd", f"--data-dir={cluster.data}/etcd", "--name=local",
        # Only in the cluster's own namespace, where no pod reaches the node's loopback.
        "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=local=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # nothing here outlives the machine
        "--log-level=warn",
    ])


def _containerd(node: Node) -> Component:
    # PATH finds runc and the shim.
    return Component(node.component("containerd"), ["containerd", "--config", f"{node.config}/containerd.toml"])


def _kube_apiserver(cluster: Layout, programs: Path, _port: int) -> Component:
    pki = cluster.pki
    return Component("kube-apiserver", [
        f"{programs}/kube-apiserver", f"--advertise-address={NODE_IP}", f"--secure-port={API_PORT}",
        "--etcd-servers=http://127.0.0.1:2379", f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--cert-dir={cluster.data}/apiserver", f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",  # the node's name is not in any DNS
        # Aggregated API servers (metrics): who calls, and straight to the pods' addresses.
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--enable-aggregator-routing=true",
    ])


def _forwarder(cluster: Layout, _programs: Path, port: int) -> Component:
    return Component("forwarder", [
        sys.executable, "-m", "localcluster.forwarder", str(port), str(cluster.netns), f"{NODE_IP}:{API_PORT}",
    ], in_namespace=False, env={"PYTHONPATH": str(_CLUSTER_DIR), "PYTHONDONTWRITEBYTECODE": "1"})


def _kube_controller_manager(cluster: Layout, programs: Path, _port: int) -> Component:
    pki, kubeconfig = cluster.pki, cluster.config / "kube-controller-manager.kubeconfig"
    return Component("kube-controller-manager", [
        f"{programs}/kube-controller-manager", f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}", f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1", f"--cert-dir={cluster.data}/controller-manager",
        f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials", "--allocate-node-cidrs", f"--cluster-cidr={POD_CIDR}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--leader-elect=false",  # the only one; with a lease it would end when the API server restarts
        "--horizontal-pod-autoscaler-sync-period=2s",
    ])


def _kube_scheduler(cluster: Layout, programs: Path, _port: int) -> Component:
    kubeconfig = cluster.config / "kube-scheduler.kubeconfig"
    return Component("kube-scheduler", [
        f"{programs}/kube-scheduler", f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}", "--bind-address=127.0.0.1",
        f"--cert-dir={cluster.data}/scheduler", "--leader-elect=false",
    ])


def _kube_proxy(cluster: Layout, programs: Path, _port: int) -> Component:
    return Component("kube-proxy", [
        f"{programs}/kube-proxy", f"--kubeconfig={cluster.config}/kube-proxy.kubeconfig",
        f"--hostname-override={cluster.nodes[0].name}", "--proxy-mode=iptables", f"--cluster-cidr={POD_CIDR}",
        "--oom-score-adj=0", "--iptables-min-sync-period=200ms",
        # These limits belong to the whole machine, and are not ours to set.
        "--conntrack-max-per-core=0", "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
    ])


def _kube_router(cluster: Layout, programs: Path, _port: int) -> Component:
    return Component("kube-router", [
        f"{programs}/kube-router", f"--kubeconfig={cluster.config}/kube-router.kubeconfig",
        f"--hostname-override={cluster.nodes[0].name}", f"--service-cluster-ip-range={SERVICE_CIDR}",
    ])


def _coredns(cluster: Layout, programs: Path, _port: int) -> Component:
    return Component("coredns", [f"{programs}/coredns", "-conf", f"{cluster.config}/Corefile"])


def _kubelet(node: Node, programs: Path) -> Component:
    name = node.component("kubelet")
    return Component(name, [
        f"{programs}/kubelet", f"--config={node.config}/kubelet.json",
        f"--kubeconfig={node.cluster.config}/{name}.kubeconfig", f"--hostname-override={node.name}",
        f"--node-ip={node.ip}", f"--root-dir={node.data}/kubelet", f"--cert-dir={node.data}/kubelet-pki",
    ])


def write_configs(cluster: Layout) -> None:
    cluster.config.mkdir(parents=True, exist_ok=True)
    (cluster.config / "Corefile").write_text(_corefile(cluster))
    (cluster.config / "resolv.conf").write_text("")
    for node in cluster.nodes:
        cni = node.config / "cni"
        cni.mkdir(parents=True, exist_ok=True)
        (cni / "10-local.conflist").write_text(json.dumps(_cni_config(node), indent=2))
        (node.config / "containerd.toml").write_text(_containerd_toml(node))
        (node.config / "kubelet.json").write_text(json.dumps(_kubelet_config(node), indent=2))


def _on_overlay(where: Path) -> bool:
    """Overlay cannot be mounted upon overlay: this machine is a container itself."""
    best = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        if (str(where) + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1] == "overlay"


def _containerd_toml(node: Node) -> str:
    snapshotter = "native" if _on_overlay(node.cluster.data) else "overlayfs"
    return f"""\
version = 2
root = "{node.data}/containerd"
state = "{node.run}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "{node.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE runc cannot lower the score, and the container would not start.
  restrict_oom_score_adj = true
  # Our pods' namespaces are found, and removed, among our own files.
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{node.config}/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{node.run}/runc"
"""


def _corefile(cluster: Layout) -> str:
    return f"""\
.:53 {{
    bind {DNS_IP}
    errors
    ready {NODE_IP}:8181
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {cluster.config}/coredns.kubeconfig
        ttl 5
    }}
}}
"""


def _cni_config(node: Node) -> dict:
    return {
        "cniVersion": "0.4.0",
        "name": node.cluster.id,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{node.data}/cni",
                    "ranges": [[{"subnet": node.pod_cidr}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet_config(node: Node) -> dict:
    cluster = node.cluster
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                           "x509": {"clientCAFile": f"{cluster.pki}/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "address": node.ip,
        "healthzPort": 10248 + node.number,
        # A kubelet removes the pods that it does not know from below its group, so it has its own.
        "cgroupRoot": node.cgroup,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": unified(),
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{cluster.config}/resolv.conf",
        "podLogsDir": f"{node.data}/pods-log",
        # Images are loaded by hand and cannot be pulled again, so none is collected; and a disk that
        # is fuller than a real node's should be is no reason to evict.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi"},
        "shutdownGracePeriod": "0s",
    }
