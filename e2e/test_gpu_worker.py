"""A model on GPUs, which are emulated, through the whole cluster: a device plugin hands them out, the worker computes on
them and watches them, and the operator does what there is to do when one is lost."""

import re

import pytest
from kubernetes import client
from support.environment import EMULATED_ARCHIVE
from support.gpus import RESOURCE, Gpus
from support.images import load_image
from support.load import Load, ask, wait_answer
from support.wait import until

FIRST, SECOND, THIRD = (f"0000:0{number}:00.0" for number in (1, 2, 3))
# The largest step runs once at a start, and a GPU's step takes a tenth of a second here.
ENGINE = {"threads": 1, "deterministic": True, "kvCacheTokens": 1024, "maxModelLen": 256, "maxNumBatchedTokens": 16,
          "maxNumSeqs": 4}


@pytest.fixture(scope="module")
def image(env):
    """The worker on the emulated GPU."""
    return load_image(env, env.emulated_image, EMULATED_ARCHIVE, "make e2e")


@pytest.fixture(scope="module")
def plugin(operator, image, gpu_runtime, tmp_path_factory):
    """Three on one node."""
    plugin = Gpus(tmp_path_factory.mktemp("gpus"), 3)
    plugin.start()
    yield plugin
    plugin.stop()


@pytest.fixture
def gpus(plugin):
    """All of them well at the beginning, whatever the test before has lost."""
    for address in (FIRST, SECOND, THIRD):
        plugin.replace(address)
    until("three GPUs that can be had", lambda: allocatable() == 3, 60)
    return plugin


def allocatable() -> int:
    nodes = client.CoreV1Api().list_node().items
    return sum(int(node.status.allocatable.get(RESOURCE, 0)) for node in nodes)


def make(make_model, image, name, ranks_per_pod):
    return make_model(name, {
        "replicas": 1, "image": image, "engine": ENGINE, "accelerator": {"resource": RESOURCE},
        "parallelism": {"tensor": 2, "ranksPerPod": ranks_per_pod}})


def group(model) -> dict:
    (one,) = model.get()["status"]["groups"]
    return one


def events(model) -> str:
    found = model.core.list_namespaced_event(model.namespace, field_selector=f"involvedObject.name={model.name}")
    return "\n".join(f"{event.reason}: {event.message}" for event in found.items)


def wait_event(model, words: str) -> None:
    """Events are written after what they tell of."""
    until(f"an Event of {words}", lambda: words in events(model), 60)


def metrics(env, pod) -> str:
    command = env.in_cluster_network("curl", "-sf", f"http://{pod.status.pod_ip}:8000/metrics")
    return env.run(*command).stdout


def answered(env, pod) -> int:
    """Requests whose answers have ended by themselves."""
    return sum(int(float(count)) for count in re.findall(
        r'^dsm_requests_finished_total\{[^}]*reason="stop"[^}]*\} (\S+)$', metrics(env, pod), re.M))


def wait_answered(env, pod) -> None:
    """A load that has begun goes on until it has an answer of this pod."""
    before = answered(env, pod)
    until(f"another answer of {pod.metadata.name}", lambda: answered(env, pod) > before, 120)


def test_two_ranks_in_a_pod_answer_as_cpus_do_and_their_gpus_are_told(env, namespace, make_model, image, gpus):
    plain = make_model("plain", {"replicas": 1, "engine": ENGINE, "parallelism": {"tensor": 1, "ranksPerPod": 1}})
    model = make(make_model, image, "on-gpus", 2)
    model.apply()
    plain.apply()
    model.wait_settled(1)
    plain.wait_settled(1)
    question = "What is the capital of France?"
    on_cpu, on_gpu = (ask(env, one, question)["choices"][0]["message"]["content"] for one in (plain, model))
    assert "Paris" in on_gpu
    assert on_gpu == on_cpu
    plain.delete()

    (pod,) = model.pods()
    mine = gpus.given[-1]
    assert len(mine) == 2
    text = metrics(env, pod)
    assert sorted(set(re.findall(r'dsm_gpu_health\{bus="([^"]+)"', text))) == mine
    assert "devices" not in group(model), "all are well"
    gpus.say(mine[1], "row_pending 1", "xid 63")
    until("a GPU that is sick", lambda: len(group(model)["devices"][0]["problems"]) == 2, 60)
    number = int(mine[1][5:7], 16) - 1
    assert group(model)["devices"] == [{"rank": 1, "name": f"GPU {number}", "node": pod.spec.node_name, "health": "Degraded",
                                        "problems": ["RowRemapPending", "Xid63"]}]
    degraded = model.condition("Degraded")
    assert degraded["reason"] == "DeviceDegraded" and f"GPU {number}: a memory row waits" in degraded["message"]
    assert model.condition("Ready")["status"] == "True"
    wait_answer(env, model)

    # One falls off the bus under traffic, and there is a third.
    with Load(env, model, threads=1) as load:
        until("a request under way", lambda: re.search(r"^dsm_requests_running\S* 1$", metrics(env, pod), re.M), 30)
        gpus.lose(mine[0])
        until("another pod", lambda: [p.metadata.uid for p in model.pods()] not in ([], [pod.metadata.uid]), 60)
        wait_event(model, "Xid 79 (GPU has fallen off the bus): restart the node")
        model.wait_settled(1)
        (again,) = model.pods()
        wait_answered(env, again)
    assert load.report["failed"] > 0, "what ran there is lost, and that is told"
    load.assert_only_retryable_failures()
    assert mine[0] not in gpus.given[-1]
    assert pod.spec.node_name in {node["name"] for node in model.get()["status"]["avoidedNodes"]}
    wait_answer(env, model)

    # The second of three: what is left is not enough, until it is replaced. The scheduler hears of it later than the
    # kubelet, which refuses pods until then; those are made again later each time.
    gpus.lose(gpus.given[-1][0])
    model.wait_told(f"Insufficient {RESOURCE}", 180)
    assert model.condition("Ready")["reason"] == "WaitingForGPU"
    for address in (FIRST, SECOND, THIRD):
        gpus.replace(address)
    model.wait_settled(1)
    wait_answer(env, model)
    assert again.metadata.uid not in {p.metadata.uid for p in model.pods()}


def test_a_rank_whose_gpu_is_lost_gets_another_and_the_other_keeps_its_weights(env, namespace, make_model, image, gpus):
    model = make(make_model, image, "apart", 1)
    model.apply()
    model.wait_settled(1)
    leader, worker = sorted(model.pods(), key=lambda pod: pod.metadata.name)
    (lost,) = set(re.findall(r'dsm_gpu_health\{bus="([^"]+)"', metrics(env, worker)))
    with Load(env, model, threads=1) as load:
        gpus.lose(lost)
        until("another pod in its place", lambda: len(model.pods()) == 2 and worker.metadata.uid not in {
            pod.metadata.uid for pod in model.pods()}, 60)
        model.wait_settled(1)
        wait_answered(env, leader)
    gpus.replace(lost)
    # There is no other group: until this one has met again, new requests are told to come later.
    load.assert_only_retryable_failures()
    assert leader.metadata.uid in {pod.metadata.uid for pod in model.pods()}
    assert all(pod.status.container_statuses[0].restart_count == 0 for pod in model.pods())
    wait_event(model, "Xid 79 (GPU has fallen off the bus): restart the node")


def test_pods_of_a_node_that_comes_up_before_its_plugin_are_made_again(env, namespace, make_model, image, gpus):
    model = make(make_model, image, "rebooted", 2)
    model.apply()
    model.wait_settled(1)
    (pod,) = model.pods()
    kubelet = "kubelet" if pod.spec.node_name == sorted(
        node.metadata.name for node in client.CoreV1Api().list_node().items)[0] else "kubelet-1"
    # As a reboot: no container is left, and the kubelet is there first.
    gpus.stop()
    env.ctl("stop", kubelet)
    env.ctl("kill-container", namespace, pod.metadata.name, "worker")
    env.ctl("start", kubelet)
    until("the pod's end", lambda: pod.metadata.uid not in {p.metadata.uid for p in model.pods()}, 120)
    wait_event(model, "UnexpectedAdmissionError")
    model.wait_told(f"Insufficient {RESOURCE}", 180)
    gpus.start()
    model.wait_settled(1)
    wait_answer(env, model)
