"""Faults under traffic. Each converges; the count of failed requests is printed, and is 0 where nothing that
serves was touched."""

from kubernetes import client
from support.load import Load, wait_answer
from support.wait import until


def pid_of(env, pod) -> str:
    """The worker's process on this machine, found by the pod's name in its arguments."""
    return env.ctl("pod-pid", pod.metadata.namespace, pod.metadata.name).strip()


def by_role(model, role):
    return [p for p in model.pods() if p.metadata.labels["deepseek-operator.io/role"] == role]


def restarts(model, name) -> int:
    for pod in model.pods():
        if pod.metadata.name == name and pod.status.container_statuses:
            return pod.status.container_statuses[0].restart_count
    return 0


def test_a_killed_rank_comes_back_and_the_survivor_keeps_its_process(env, namespace, make_model, local_only):
    model = make_model("wounded")
    model.apply()
    model.wait_settled(2)
    victim = by_role(model, "worker")[0]
    group = victim.metadata.labels["deepseek-operator.io/group"]
    leader = next(p for p in by_role(model, "leader")
                  if p.metadata.labels["deepseek-operator.io/group"] == group)
    with Load(env, model) as load:
        env.run("kill", "-9", pid_of(env, victim))
        until("a restart of the killed rank", lambda: restarts(model, victim.metadata.name) == 1, 60)
        model.wait_settled(2)
    assert restarts(model, leader.metadata.name) == 0
    assert load.report["ok"] > 0
    wait_answer(env, model)
    # The lost rank is not the leader: its clients see a pause, not an error.
    load.assert_no_failures()


def test_a_killed_leader_comes_back(env, namespace, make_model, local_only):
    model = make_model("headless")
    model.apply()
    model.wait_settled(2)
    victim = by_role(model, "leader")[0]
    with Load(env, model) as load:
        env.run("kill", "-9", pid_of(env, victim))
        until("a restart of the killed leader", lambda: restarts(model, victim.metadata.name) == 1, 60)
        model.wait_settled(2)
    # What ran on it is lost, and said so to the client; nothing else is.
    assert load.report["ok"] > 0
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


def test_losing_the_leading_operator_fails_no_request(env, operator, namespace, make_model):
    model = make_model("orphaned")
    model.apply()
    model.wait_settled(2)
    leases = client.CoordinationV1Api()
    lease = leases.list_namespaced_lease(operator).items[0]
    holder = lease.spec.holder_identity
    pods = client.CoreV1Api().list_namespaced_pod(
        operator, label_selector="app.kubernetes.io/name=deepseek-operator").items
    leading = next(p for p in pods if p.metadata.name in holder)
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
