"""A tenant's network rules where something enforces them: connections that are let through, and such that are not."""

import pytest
from kubernetes import client
from support.load import Load
from support.visitor import Visitor, command_for, opened
from support.wait import until


@pytest.fixture
def enforced(env, local_only):
    """NetworkPolicies hold while the test runs."""
    started = env.run(env.cluster_ctl, "start", "kube-router", check=False)
    if "cannot enforce network rules" in started.stderr:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    yield
    env.ctl("stop", "kube-router")


def test_connections_are_let_through_or_not_as_the_tenant_says(env, enforced, namespace, make_namespace, make_model,
                                                               make_tenant):
    friends, others = make_namespace(), make_namespace()
    tenant = make_tenant({"namespaces": [namespace], "clients": {"namespaces": [friends]}, "keys": {"required": False}})
    tenant.apply()
    tenant.wait_ready()
    own, friend, other = (Visitor(env, where, "visitor").start() for where in (namespace, friends, others))
    model = make_model("walled", {"replicas": 1})
    model.apply()
    # So its ranks have met, by name and address, and the operator reads the leader's status on port 8001.
    model.wait_settled(1)
    for visitor in (own, friend, other):
        visitor.wait_ready()

    leader, rank = sorted(model.pods(), key=lambda pod: pod.metadata.name)
    service = client.CoreV1Api().read_namespaced_service(model.name, namespace).spec
    model_ports = [(service.cluster_ip, service.ports[0].port), (leader.status.pod_ip, 8000)]
    internal = [(leader.status.pod_ip, 8001), (leader.status.pod_ip, 8002), (rank.status.pod_ip, 8001)]
    dns = [("169.254.20.10", 53)]
    api_server = [("10.96.0.1", 443)]
    everything = model_ports + internal + dns + api_server

    # All of it is there: the node itself is held to no rule.
    at_node = env.run(*env.in_cluster_network(*command_for(everything))).stdout
    assert all(opened(at_node, everything).values()), at_node
    may = {
        "a pod of the tenant": (own, model_ports + dns),
        "a pod of a client's namespace": (friend, model_ports + dns + api_server),
        "a pod of another namespace": (other, dns + api_server),
        "a rank": (Visitor(env, namespace, rank.metadata.name), model_ports + internal + dns),
    }
    with Load(env, model) as load:  # from the node
        passed = 0
        for who, (visitor, allowed) in may.items():
            wanted = {target: target in allowed for target in everything}
            # Rules follow pods within a moment.
            until(f"the right connections of {who}", lambda v=visitor, w=wanted: matching(v.reaches(everything), w), 60)
            passed += len(allowed)
        load.notes.append(f"{passed} connections of pods let through, {len(may) * len(everything) - passed} refused")
        # It is the tenant's rules that do it.
        tenant.delete()
        until("an open model", lambda: all(other.reaches(model_ports + internal).values()), 30)
    load.assert_no_failures()


def matching(seen: dict, wanted: dict) -> bool:
    assert seen == wanted, {target: reached for target, reached in seen.items() if reached != wanted[target]}
    return True
