"""Groups that get their nodes together or not at all, by the coscheduling plugin's own scheduler: `make e2e-coscheduling`."""

import json

import pytest
from kubernetes import client
from support.coscheduling import SCHEDULER, Coscheduling
from support.load import wait_answer
from support.wait import until

# What a node has as many of as a test says; each pod asks for one.
SLOT = "example.com/slot"
# One group of two pods.
SPEC = {"replicas": 1, "drainSeconds": 0, "placement": {"schedulerName": SCHEDULER},
        "template": {"resources": {"requests": {SLOT: "1"}, "limits": {SLOT: "1"}}}}


@pytest.fixture(scope="module")
def coscheduling(env, operator, tmp_path_factory):
    """Installed after the operator."""
    if not env.coscheduling:
        pytest.skip("needs the scheduler's program: make e2e-coscheduling")
    one = Coscheduling(env, tmp_path_factory.mktemp("coscheduling"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture
def give_slots(env):
    """Sets how many slots the first node has; the others have none."""
    core = client.CoreV1Api()
    name = sorted(node.metadata.name for node in core.list_node().items)[0]

    def patch_status(operation: dict) -> None:
        path = "/status/{}/" + SLOT.replace("/", "~1")
        patch = [{**operation, "path": path.format(part)} for part in ("capacity", "allocatable")]
        env.k("patch", "node", name, "--subresource=status", "--type=json", "-p", json.dumps(patch))

    yield lambda count: patch_status({"op": "add", "value": str(count)})
    if SLOT in core.read_node(name).status.capacity:
        patch_status({"op": "remove"})


def bound(model) -> list[str]:
    return sorted(pod.metadata.name for pod in model.pods() if pod.spec.node_name)


def bound_at(pod):
    return next(one.last_transition_time for one in pod.status.conditions if one.type == "PodScheduled")


def test_a_group_gets_its_nodes_together_or_none(env, namespace, make_model, coscheduling, give_slots):
    give_slots(1)
    model = make_model("pair", SPEC)
    model.apply()
    model.wait_told(f"Insufficient {SLOT}", 60)
    group = model.get()["status"]["groups"][0]
    assert (group["phase"], group["reason"]) == ("Pending", "Unschedulable"), group
    assert coscheduling.pod_groups(namespace) == {group["name"]: 2}

    # There is room for one of them. Each time that it is given anew one pod gets it, and gives it back: the other has none.
    names = [pod.metadata.name for pod in model.pods()]

    def tries() -> tuple[int, list[int]]:
        held, failed = zip(*(coscheduling.tries(namespace, name) for name in names))
        return sum(held), list(failed)

    def tried_again(since: tuple[int, list[int]]) -> bool:
        held, failed = tries()
        return held > since[0] and all(now > before for now, before in zip(failed, since[1]))

    for _ in range(3):
        before = tries()
        give_slots(0)
        give_slots(1)
        until("another try of both pods", lambda b=before: tried_again(b), 60)
        assert not bound(model), coscheduling.log()

    give_slots(2)
    model.wait_settled(1)
    first, second = (bound_at(pod) for pod in model.pods())
    assert abs((first - second).total_seconds()) <= 2, f"{first} and {second}"
    wait_answer(env, model)

    # A rank that is lost comes back alone, because the other one of its PodGroup has its node.
    lost = sorted(model.pods(), key=lambda pod: pod.metadata.name)[1].metadata
    env.k("delete", "pod", lost.name, "-n", namespace, "--wait=false")
    until("the lost pod again", lambda: any(
        pod.metadata.name == lost.name and pod.metadata.uid != lost.uid for pod in model.pods()), 60)
    model.wait_settled(1)
    wait_answer(env, model)

    model.delete()
    until("the end of the PodGroup", lambda: not coscheduling.pod_groups(namespace), 30)


def test_two_groups_that_need_all_the_room_do_not_get_half_of_it_each(env, namespace, make_model, coscheduling, give_slots):
    give_slots(0)
    models = [make_model(name, SPEC) for name in ("left", "right")]
    for model in models:
        model.apply()
    for model in models:
        model.wait_told(f"Insufficient {SLOT}", 60)
    seen = set()

    def one_group_has_all():
        seen.add(tuple(sorted(len(bound(model)) for model in models)))
        return (0, 2) in seen

    give_slots(2)
    until("a group with all the room", one_group_has_all, 90)
    assert (1, 1) not in seen, coscheduling.log()
    winner, waiting = sorted(models, key=lambda model: -len(bound(model)))
    winner.wait_settled(1)
    wait_answer(env, winner)
    waiting.wait_told(f"Insufficient {SLOT}", 60)
    assert not bound(waiting)
    assert len(coscheduling.pod_groups(namespace)) == 2
    assert all(least == 2 for least in coscheduling.pod_groups(namespace).values())

    winner.delete()
    waiting.wait_settled(1)
    wait_answer(env, waiting)
    group = waiting.get()["status"]["groups"][0]["name"]
    until("the PodGroup of the group that is there alone", lambda: coscheduling.pod_groups(namespace) == {group: 2}, 60)


def test_a_group_of_one_pod_needs_none(env, namespace, make_model, coscheduling, give_slots):
    give_slots(1)
    model = make_model("alone", {**SPEC, "parallelism": {"tensor": 2, "ranksPerPod": 2}})
    model.apply()
    model.wait_settled(1)
    wait_answer(env, model)
    assert coscheduling.pod_groups(namespace) == {}
