"""Models in a queue of Kueue, whose own controller admits their groups: `make e2e-kueue`."""

import time

import pytest
from kubernetes import client
from support.kueue import Kueue
from support.load import wait_answer
from support.wait import until

QUEUE = "gpus"
LABEL = "kueue.x-k8s.io/queue-name"
# One group of two pods, which request 100m of the CPU each.
SPEC = {"replicas": 1, "drainSeconds": 0}


@pytest.fixture
def kueue(env, local_only, namespace, tmp_path):
    if not env.kueue:
        pytest.skip("needs Kueue's program: make e2e-kueue")
    one = Kueue(env, namespace, tmp_path / "kueue")
    try:
        one.start()
        one.make_queue(QUEUE, cpu="300m")
        yield one
        # A queue stays for as long as something in it does.
        env.k("delete", "dsm", "--all", "-n", namespace)
        until("the end of the models' pods",
              lambda: not client.CoreV1Api().list_namespaced_pod(namespace).items, 60)
        one.remove_queue(QUEUE)
    finally:
        one.stop()


def gated(model) -> bool:
    pods = model.pods()
    return len(pods) == 2 and all(pod.spec.scheduling_gates for pod in pods)


def uids(model) -> set[str]:
    return {pod.metadata.uid for pod in model.pods()}


def test_groups_are_admitted_whole_and_wait_their_turn(env, namespace, make_model, kueue):
    first = make_model("first", {**SPEC, "placement": {"queueName": QUEUE}})
    first.apply()
    first.wait_settled(1)
    wait_answer(env, first)
    group = first.get()["status"]["groups"][0]["name"]
    assert kueue.workloads() == [group]

    # The label of the object does the same. There is no quota for a second group.
    second = make_model("second", SPEC)
    second.body["metadata"]["labels"] = {LABEL: QUEUE}
    second.apply()
    until("a group that waits", lambda: gated(second), 60)
    second.wait_told("insufficient unused quota for cpu", 60)
    assert second.condition("Ready")["reason"] == "WaitingForAdmission"
    assert second.get()["status"]["groups"][0]["phase"] == "Pending"
    waiting = uids(second)

    # A rank that is lost comes back under its name and in its Workload, although Kueue holds it when it has ended.
    lost = sorted(first.pods(), key=lambda pod: pod.metadata.name)[1]
    env.k("delete", "pod", lost.metadata.name, "-n", namespace, "--wait=false")
    until("the lost pod again", lambda: any(
        pod.metadata.name == lost.metadata.name and pod.metadata.uid != lost.metadata.uid for pod in first.pods()), 60)
    first.wait_settled(1)
    wait_answer(env, first)
    assert group in kueue.workloads()

    # Nothing was made anew meanwhile; the second one starts when the first has gone.
    assert uids(second) == waiting and gated(second)
    first.delete()
    second.wait_settled(1)
    assert uids(second) == waiting
    wait_answer(env, second)
    until("the end of the first model's pods", lambda: not first.pods(), 30)


def test_a_group_that_is_evicted_waits_again(env, namespace, make_model, kueue):
    model = make_model("evicted", {**SPEC, "placement": {"queueName": QUEUE}})
    model.apply()
    model.wait_settled(1)
    before = uids(model)
    kueue.hold(QUEUE, "HoldAndDrain")
    until("another group, which waits", lambda: gated(model) and not uids(model) & before, 60)
    waiting = uids(model)
    assert model.condition("Ready")["reason"] == "WaitingForAdmission"
    # It is not made again and again: the same pods wait for longer than any retry takes.
    until("some time", lambda end=time.monotonic() + 20: uids(model) == waiting and time.monotonic() > end, 30)
    kueue.hold(QUEUE, "None")
    model.wait_settled(1)
    assert uids(model) == waiting
    wait_answer(env, model)
    # The Workload of the evicted group holds no quota any more.
    until("one Workload", lambda: kueue.workloads() == [model.get()["status"]["groups"][0]["name"]], 30)
