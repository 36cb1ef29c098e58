"""How the peer of the benchmark is installed and asked."""

import base64
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "e2e/cluster")]

from scale import lws  # noqa: E402
from scale.deepseek import Operator  # noqa: E402
from scale.lws import LeaderWorkerSet  # noqa: E402
from scale.subject import GROUPS, PODS, has  # noqa: E402

# What is asked of a running cluster is not needed for these.
OURS, PEER = (kind.__new__(kind) for kind in (Operator, LeaderWorkerSet))


def test_both_are_asked_for_the_same_groups():
    ours, theirs = (one.make("team-0", "m0") for one in (OURS, PEER))
    assert ours["metadata"] == theirs["metadata"] == {"name": "m0", "namespace": "team-0"}
    assert ours["spec"]["replicas"] == theirs["spec"]["replicas"] == GROUPS
    assert ours["spec"]["parallelism"]["tensor"] == theirs["spec"]["leaderWorkerTemplate"]["size"] == PODS


def test_each_says_by_its_own_condition_that_it_is_ready():
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Available", "status": "False"}]}}
    assert OURS.is_ready(ready) and not PEER.is_ready(ready)
    assert not has({}, "Ready")


def test_the_calls_of_the_controller_that_makes_the_peers_pods_count_for_it():
    assert "system:serviceaccount:kube-system:statefulset-controller" in LeaderWorkerSet.users
    assert Operator.users == ("system:serviceaccount:deepseek-system:deepseek-operator",)


def test_every_webhook_gets_the_authority_and_keeps_the_rest():
    service = {"service": {"name": "lws-webhook-service", "path": "/mutate"}}
    before = {"metadata": {"resourceVersion": "7"}, "webhooks": [
        {"name": name, "failurePolicy": "Fail", "clientConfig": service} for name in ("a", "b")]}
    after = lws.trusting(before, b"PEM")
    assert after["metadata"] == before["metadata"]
    for one, name in zip(after["webhooks"], ("a", "b"), strict=True):
        assert one == {"name": name, "failurePolicy": "Fail",
                       "clientConfig": {**service, "caBundle": base64.b64encode(b"PEM").decode()}}
    assert "caBundle" not in before["webhooks"][0]["clientConfig"]


def test_replicas_share_an_address_and_no_port():
    configs = [lws.configuration(number, pathlib.Path("/certificates")) for number in range(2)]
    ports = [str(value).rpartition(":")[2] for one in configs for value in (
        one["webhook"]["port"], one["metrics"]["bindAddress"], one["health"]["healthProbeBindAddress"])]
    assert len(set(ports)) == 6


def test_the_service_leads_to_each_replicas_webhooks():
    for number in range(2):
        webhook = lws.configuration(number, pathlib.Path("/certificates"))["webhook"]
        found = lws.endpoint(f"lws-{number}", number)
        assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "lws-webhook-service"
        assert (found["endpoints"][0]["addresses"], found["ports"][0]["port"]) == ([webhook["host"]], webhook["port"])
