"""How the peers of the benchmark are installed and asked."""

import base64
import pathlib
import sys
from types import SimpleNamespace

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "e2e/cluster")]

from scale import lws, peer  # noqa: E402
from scale.deepseek import Operator  # noqa: E402
from scale.kserve import KServe  # noqa: E402
from scale.lws import LeaderWorkerSet  # noqa: E402
from scale.subject import GROUPS, PODS, has  # noqa: E402

# What is asked of a running cluster is not needed for these.
OURS, SETS, SERVICES = SUBJECTS = [kind.__new__(kind) for kind in (Operator, LeaderWorkerSet, KServe)]


def pods(subject, spec):
    """How many pods a spec asks a subject for."""
    if subject is SERVICES:
        return spec["predictor"]["minReplicas"]
    return spec["replicas"] * PODS


@pytest.mark.parametrize("subject", SUBJECTS)
def test_all_are_asked_for_the_same_pods_and_for_the_same_more(subject):
    one = subject.make("team-0", "m0")
    assert (one["metadata"]["name"], one["metadata"]["namespace"]) == ("m0", "team-0")
    assert one["apiVersion"] == subject.resource[0] and one["kind"].lower() + "s" == subject.resource[1]
    assert pods(subject, one["spec"]) == GROUPS * PODS
    assert pods(subject, subject.grown()["spec"]) == (GROUPS + 1) * PODS


def test_groups_are_of_the_same_size_where_there_are_groups():
    assert OURS.make("team-0", "m0")["spec"]["parallelism"]["tensor"] == PODS
    assert SETS.make("team-0", "m0")["spec"]["leaderWorkerTemplate"]["size"] == PODS


def test_each_says_by_its_own_condition_that_it_is_ready():
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Available", "status": "False"}]}}
    assert OURS.is_ready(ready) and SERVICES.is_ready(ready) and not SETS.is_ready(ready)
    assert not has({}, "Ready")


def test_the_calls_of_the_controllers_that_make_a_peers_pods_count_for_it():
    def helpers(kind):
        return {user.rpartition(":")[2] for user in kind.users if user.startswith("system:serviceaccount:kube-system:")}

    assert helpers(LeaderWorkerSet) == {"statefulset-controller"}
    assert helpers(KServe) == {"deployment-controller", "replicaset-controller"}
    assert Operator.users == ("system:serviceaccount:deepseek-system:deepseek-operator",)


def test_every_webhook_gets_the_authority_and_keeps_the_rest():
    service = {"service": {"name": "lws-webhook-service", "path": "/mutate"}}
    before = {"metadata": {"resourceVersion": "7"}, "webhooks": [
        {"name": name, "failurePolicy": "Fail", "clientConfig": service} for name in ("a", "b")]}
    after = peer.trusting(before, b"PEM")
    assert after["metadata"] == before["metadata"]
    for one, name in zip(after["webhooks"], ("a", "b"), strict=True):
        assert one == {"name": name, "failurePolicy": "Fail",
                       "clientConfig": {**service, "caBundle": base64.b64encode(b"PEM").decode()}}
    assert "caBundle" not in before["webhooks"][0]["clientConfig"]


def test_a_peers_webhooks_are_those_that_its_own_namespace_serves():
    def configuration(client):
        return {"webhooks": [{"clientConfig": client}]}

    assert peer.asks(configuration({"service": {"namespace": "kserve", "name": "a"}}), "kserve")
    assert not peer.asks(configuration({"service": {"namespace": "lws-system", "name": "a"}}), "kserve")
    assert not peer.asks(configuration({"url": "https://elsewhere"}), "kserve")
    assert not peer.asks({"metadata": {"name": "empty"}}, "kserve")


def test_replicas_share_an_address_and_no_port():
    configs = [lws.configuration(number, pathlib.Path("/certificates")) for number in range(2)]
    ports = [str(value).rpartition(":")[2] for one in configs for value in (
        one["webhook"]["port"], one["metrics"]["bindAddress"], one["health"]["healthProbeBindAddress"])]
    assert len(set(ports)) == 6


def test_a_slice_leads_from_the_service_to_a_replica():
    found = peer.endpoint("hooks", "kserve-a", 9444)
    assert found["metadata"] == {"name": "kserve-a", "labels": {"kubernetes.io/service-name": "hooks"}}
    assert (found["endpoints"][0]["addresses"], found["ports"][0]["port"]) == ([peer.NODE_IP], 9444)


@pytest.mark.parametrize("number", range(2))
def test_leaderworkersets_webhooks_are_served_where_its_service_leads(number):
    webhook = lws.configuration(number, pathlib.Path("/certificates"))["webhook"]
    assert (webhook["host"], webhook["port"]) == (peer.NODE_IP, peer.webhook_port(number))


def test_kserve_finds_its_certificate_and_its_settings():
    one = KServe.__new__(KServe)
    one.plane = SimpleNamespace(cluster=SimpleNamespace(config=pathlib.Path("/config")))
    one.binary, one.kubeconfig = pathlib.Path("/kserve"), pathlib.Path("/kubeconfig")
    component = one.component(0)
    assert component.name in KServe.replicas
    assert f"--webhook-port={peer.webhook_port(0)}" in component.argv
    assert component.env["POD_NAMESPACE"] == KServe.namespace
    # controller-runtime's default, below the system's folder for temporary files
    assert one.certificates == pathlib.Path(component.env["TMPDIR"]) / "k8s-webhook-server/serving-certs"


def test_kserve_without_an_autoscaler_has_as_many_pods_as_it_is_told():
    one = SERVICES.make("team-0", "m0")
    assert one["metadata"]["annotations"] == {"serving.kserve.io/autoscalerClass": "none"}
    # Without a storageUri any other format would be a server of many models, which gets a sidecar and a ConfigMap.
    assert one["spec"]["predictor"]["model"]["modelFormat"] == {"name": "huggingface"}
