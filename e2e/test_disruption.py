"""Nodes that are emptied, rollouts that are held and groups that are given up, under traffic."""

import time

from kubernetes import client
from support.load import Load, wait_answer
from support.nodes import cordoned
from support.wait import until


def groups_of(model) -> set[str]:
    return {pod.metadata.name.rpartition("-")[0] for pod in model.pods()}


def eviction_of(pod) -> int:
    """The status code with which the API server answers the eviction of a pod."""
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name, namespace=pod.metadata.namespace))
    try:
        client.CoreV1Api().create_namespaced_pod_eviction(pod.metadata.name, pod.metadata.namespace, body)
    except client.ApiException as refusal:
        return refusal.status
    return 201


def test_a_drain_takes_no_part_of_a_group_and_without_room_says_so(env, namespace, make_model):
    model = make_model("held")
    model.apply()
    model.wait_settled(2)
    serving = {pod.metadata.uid for pod in model.pods()}
    # All nodes at once, so that there is no room elsewhere however many the cluster has.
    nodes = [node.metadata.name for node in client.CoreV1Api().list_node().items]
    with Load(env, model) as load:
        with cordoned(env, nodes):
            until("a group that leaves its node",
                  lambda: any(g.get("reason") == "NodeDraining" for g in model.get()["status"]["groups"]), 30)
            assert {eviction_of(pod) for pod in model.pods() if pod.metadata.uid in serving} == {429}
            until("a blocked drain", lambda: model.condition("Degraded")["reason"] == "DrainBlocked", 120)
            assert model.condition("Ready")["status"] == "True"
            until("the end of the group that found no node", lambda: len(model.pods()) == 4, 60)
        until("a model that is well again", lambda: model.condition("Degraded")["status"] == "False", 30)
        model.wait_settled(2)
    assert {pod.metadata.uid for pod in model.pods()} == serving
    load.assert_no_failures()


def test_a_drained_node_is_left_without_a_failed_request(env, model_on_one_of_two_nodes):
    model, free, full = model_on_one_of_two_nodes
    with Load(env, model) as load:
        try:
            # Evicts again and again until the budgets let it; it does not wait for the operator otherwise.
            env.k("drain", full, "--ignore-daemonsets", "--delete-emptydir-data",
                  f"--pod-selector=deepseek-operator.io/model={model.name}", "--timeout=240s")
            model.wait_settled(2)
        finally:
            env.k("uncordon", full)
    assert {pod.spec.node_name for pod in model.pods()} == {free}
    load.assert_no_failures()


def test_groups_of_a_node_that_stops_answering_move(env, model_on_one_of_two_nodes, local_only):
    model, free, full = model_on_one_of_two_nodes
    lost = {pod.metadata.uid for pod in model.pods()}
    # The local cluster's second node has the second kubelet.
    kubelet = f"kubelet-{full.rpartition('-')[2]}"
    with Load(env, model) as load:
        env.ctl("kill", kubelet)
        begin = time.monotonic()
        try:
            until("two groups on the other node", lambda: model.get()["status"]["readyReplicas"] == 2 and {
                pod.spec.node_name for pod in model.pods() if pod.metadata.uid not in lost} == {free}, 240)
            load.notes.append(f"serving again {time.monotonic() - begin:.0f} s after the node stopped answering")
            # Nobody ended the pods there, so they are not said to be gone.
            assert lost <= {pod.metadata.uid for pod in model.pods()}
        finally:
            env.ctl("start", kubelet)
        model.wait_settled(2)
    assert load.report["ok"] > 0
    wait_answer(env, model)


def test_budgets_come_and_go_with_their_groups(env, namespace, make_model):
    model = make_model("guarded")
    model.apply()
    model.wait_settled(2)
    policy = client.PolicyV1Api()

    def budgets() -> dict[str, int]:
        return {b.metadata.name: b.spec.min_available for b in policy.list_namespaced_pod_disruption_budget(namespace).items}

    assert budgets() == {group: 2 for group in groups_of(model)}
    model.scale(1)
    model.wait_settled(1)
    until("one budget", lambda: budgets() == {group: 2 for group in groups_of(model)}, 30)
    model.delete()
    until("no budget", lambda: not budgets(), 60)


def test_a_rollout_is_held_and_goes_on(env, namespace, make_model):
    model = make_model("patient")
    model.apply()
    before = model.wait_settled(2)["status"]["currentRevision"]
    serving = {pod.metadata.uid for pod in model.pods()}
    with Load(env, model) as load:
        model.patch_spec({"model": {"revision": "second"}, "rollout": {"paused": True}})
        until("a paused rollout", lambda: model.condition("Progressing")["reason"] == "RolloutPaused", 30)
        assert {pod.metadata.uid for pod in model.pods()} == serving
        model.patch_spec({"rollout": {"paused": False}})
        assert model.wait_settled(2)["status"]["currentRevision"] != before
    load.assert_no_failures()


def test_a_group_that_keeps_ending_is_replaced(env, namespace, make_model, local_only):
    model = make_model("flawed", {"recovery": {"maxRestarts": 1}})
    model.apply()
    model.wait_settled(2)
    victim = next(p for p in model.pods() if p.metadata.labels["deepseek-operator.io/role"] == "worker")
    group = victim.metadata.name.rpartition("-")[0]

    def restarts() -> int:
        pod = next((p for p in model.pods() if p.metadata.name == victim.metadata.name), None)
        return pod.status.container_statuses[0].restart_count if pod and pod.status.container_statuses else 0

    with Load(env, model) as load:
        env.run("kill", "-9", env.ctl("pod-pid", namespace, victim.metadata.name).strip())
        until("a restart", lambda: restarts() == 1, 60)
        model.wait_settled(2)
        env.run("kill", "-9", env.ctl("pod-pid", namespace, victim.metadata.name).strip())
        until("another group in its place", lambda: group not in groups_of(model), 120)
        model.wait_settled(2)
    status = model.get()["status"]
    assert status["backoff"]["reason"] == "CrashLoop"
    assert group in status["backoff"]["message"]
    assert [node["name"] for node in status["avoidedNodes"]] == [victim.spec.node_name]
    assert load.report["ok"] > 0
    wait_answer(env, model)
