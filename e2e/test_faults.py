"""Faults under traffic. Each converges; the count of failed requests is printed, and is 0 where nothing that
serves was touched."""

import time
from contextlib import contextmanager

from kubernetes import client
from support.hang import busiest_thread, held_still
from support.load import Load, wait_answer
from support.wait import until


def pid_of(env, pod) -> str:
    """The worker's process on this machine, found by the pod's name in its arguments."""
    return env.ctl("pod-pid", pod.metadata.namespace, pod.metadata.name).strip()


def by_role(model, role):
    return [p for p in model.pods() if p.metadata.labels["deepseek-operator.io/role"] == role]


def worker_and_its_leader(model):
    """Two pods of one group."""
    worker = by_role(model, "worker")[0]
    group = worker.metadata.labels["deepseek-operator.io/group"]
    return worker, next(p for p in by_role(model, "leader")
                        if p.metadata.labels["deepseek-operator.io/group"] == group)


def restarts(model, name) -> int:
    for pod in model.pods():
        if pod.metadata.name == name and pod.status.container_statuses:
            return pod.status.container_statuses[0].restart_count
    return 0


def test_a_killed_rank_comes_back_and_the_survivor_keeps_its_process(env, namespace, make_model, local_only):
    model = make_model("wounded")
    model.apply()
    model.wait_settled(2)
    victim, leader = worker_and_its_leader(model)
    with Load(env, model) as load:
        begin = time.monotonic()
        env.run("kill", "-9", pid_of(env, victim))
        until("a restart of the killed rank", lambda: restarts(model, victim.metadata.name) == 1, 60)
        model.wait_settled(2)
        load.notes.append(f"both groups serve again {time.monotonic() - begin:.1f} s after a rank was killed")
    assert restarts(model, leader.metadata.name) == 0
    assert load.report["ok"] > 0
    wait_answer(env, model)
    # The lost rank is not the leader: its clients see a pause, not an error.
    load.assert_no_failures()


def test_a_rank_that_hangs_is_found_while_its_process_goes_on(env, namespace, make_model, local_only):
    model = make_model("frozen")
    model.apply()
    model.wait_settled(2)
    victim, leader = worker_and_its_leader(model)

    def log() -> str:
        return env.k("logs", "-n", namespace, leader.metadata.name)

    # Enough clients that each group always has a step under way.
    with Load(env, model, threads=6) as load:
        wait_answer(env, model)
        formed = log().count("group formed")
        begin = time.monotonic()
        with held_still(busiest_thread(pid_of(env, victim))):
            until("a step that does not get on", lambda: "a rank hangs" in log(), 60)
            load.notes.append(f"found {time.monotonic() - begin:.1f} s after a rank stood still")
        until("another epoch", lambda: log().count("group formed") > formed, 60)
        load.notes.append(f"both groups serve again {time.monotonic() - begin:.1f} s after it")
        model.wait_settled(2)
    assert restarts(model, victim.metadata.name) == restarts(model, leader.metadata.name) == 0
    load.assert_no_failures()


def test_a_killed_leader_comes_back(env, namespace, make_model, local_only):
    model = make_model("headless")
    model.apply()
    model.wait_settled(2)
    victim = by_role(model, "leader")[0]
    with Load(env, model) as load:
        begin = time.monotonic()
        env.run("kill", "-9", pid_of(env, victim))
        until("a restart of the killed leader", lambda: restarts(model, victim.metadata.name) == 1, 60)
        model.wait_settled(2)
        load.notes.append(f"both groups serve again {time.monotonic() - begin:.1f} s after a leader was killed")
    # What ran on it is lost, and the client may ask again; nothing else is.
    load.assert_only_retryable_failures()
    wait_answer(env, model)


def test_a_deleted_pod_is_replaced(env, namespace, make_model):
    model = make_model("bereft")
    model.apply()
    model.wait_settled(2)
    victim = by_role(model, "worker")[0]
    with Load(env, model) as load:
        env.k("delete", "pod", victim.metadata.name, "-n", namespace, "--wait=false")
        until("another pod in its place",
              lambda: victim.metadata.uid not in {p.metadata.uid for p in model.pods()}, 90)
        model.wait_settled(2)
    assert load.report["ok"] > 0
    wait_answer(env, model)


def operator_pods(namespace):
    return client.CoreV1Api().list_namespaced_pod(
        namespace, label_selector="app.kubernetes.io/name=deepseek-operator").items


def test_losing_the_leading_operator_fails_no_request(env, operator, namespace, make_model):
    model = make_model("orphaned")
    model.apply()
    model.wait_settled(2)
    leases = client.CoordinationV1Api()
    lease = leases.list_namespaced_lease(operator).items[0]
    holder = lease.spec.holder_identity
    leading = next(p for p in operator_pods(operator) if p.metadata.name in holder)
    with Load(env, model) as load:
        env.k("delete", "pod", leading.metadata.name, "-n", operator, "--grace-period=0", "--force", "--wait=false")
        model.scale(1)
        model.wait_settled(1)
    taken = leases.read_namespaced_lease(lease.metadata.name, operator).spec.holder_identity
    assert taken != holder
    load.assert_no_failures()


def test_an_api_server_restart_is_survived(env, namespace, make_model, local_only):
    model = make_model("amnesic")
    model.apply()
    model.wait_settled(2)
    with Load(env, model) as load:
        env.ctl("restart", "kube-apiserver")
        model.scale(1)
        model.wait_settled(1)
        model.scale(2)
        model.wait_settled(2)
    load.assert_no_failures()


@contextmanager
def paused(env, component: str, seconds: float):
    """Holds a process of the control plane still from the beginning to the end of the block, and at least so long."""
    env.ctl("pause", component)
    end = time.monotonic() + seconds
    try:
        yield
        time.sleep(max(0.0, end - time.monotonic()))  # the fault has a length; nothing is waited for
    finally:
        env.ctl("resume", component)


def test_ten_seconds_without_etcd_fail_no_request(env, operator, namespace, make_model, local_only):
    model = make_model("stalled")
    model.apply()
    model.wait_settled(2)
    serving = {pod.metadata.uid for pod in model.pods()}

    def operators():
        return {(p.metadata.uid, p.status.container_statuses[0].restart_count) for p in operator_pods(operator)}

    def lease():
        return client.CoordinationV1Api().list_namespaced_lease(operator).items[0].spec

    before, leader = operators(), lease().holder_identity
    with Load(env, model) as load:
        with paused(env, "etcd", 10):
            until("an API server that misses its etcd",
                  lambda: env.run(env.kubectl, "get", "--raw", "/readyz/etcd", check=False).returncode != 0, 8)
        begin, last = time.monotonic(), lease().renew_time
        model.scale(1)
        model.wait_settled(1)
        load.notes.append(f"one group fewer, as asked, {time.monotonic() - begin:.1f} s after etcd goes on")
        until("a Lease that is renewed", lambda: lease().renew_time > last, 30)
        load.notes.append(f"{'the same' if lease().holder_identity == leader else 'the other'} replica leads")
    # The pods that are left were there before, and so were the operator's.
    assert {pod.metadata.uid for pod in model.pods()} < serving
    assert operators() == before
    load.assert_no_failures()
