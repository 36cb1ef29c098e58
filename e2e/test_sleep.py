"""A model sleeps and wakes in a cluster, by its spec and by dsmctl."""

import json
import time

from support.load import Load, ask, wait_answer
from support.wait import until

QUESTION = "Count from 57 to 68."


def asleep(model, groups):
    status = model.get().get("status", {})
    reason = next((c["reason"] for c in status.get("conditions", []) if c["type"] == "Ready"), "")
    return reason == "Asleep" and [g["phase"] for g in status.get("groups", [])] == ["Asleep"] * groups


def conditions(model):
    return {c["type"]: c["status"] for c in model.get()["status"]["conditions"]}


def ask_leader(env, model, pod):
    """Status, headers and body of a question to a leader itself: the Service of a model that sleeps has no endpoint."""
    body = json.dumps({"model": model.name, "messages": [{"role": "user", "content": QUESTION}]})
    done = env.run(*env.in_cluster_network("curl", "-sS", "-i", "--max-time", "30", "-H", "Content-Type: application/json",
                                           "-d", body, f"http://{pod.status.pod_ip}:8000/v1/chat/completions"))
    head, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
    return int(head.split()[1]), head.lower(), json.loads(text)


def test_a_model_sleeps_under_traffic_and_wakes_with_the_same_answers(env, namespace, make_model, local_only):
    model = make_model("sleeper", {"replicas": 1})
    model.apply()
    model.wait_settled(1)
    before = ask(env, model, QUESTION)["choices"][0]["message"]["content"]
    pods = {pod.metadata.uid for pod in model.pods()}
    with Load(env, model) as load:
        wait_answer(env, model)
        env.run(env.dsmctl, "sleep", model.name, "-n", namespace)
        until("a model that sleeps", lambda: asleep(model, 1), 60)
        leader = next(p for p in model.pods() if p.metadata.labels["deepseek-operator.io/role"] == "leader")
        status, head, body = ask_leader(env, model, leader)
        assert (status, body["error"]["code"]) == (503, "asleep")
        assert "retry-after:" in head
        assert conditions(model)["Degraded"] == "False"
        assert "Asleep" in env.run(env.dsmctl, "status", model.name, "-n", namespace).stdout
        begin = time.monotonic()
        env.run(env.dsmctl, "wake", model.name, "-n", namespace)
        model.wait_settled(1, 60)
        load.notes.append(f"awake and ready {time.monotonic() - begin:.1f} s after dsmctl wake")
    # The traffic does not retry: what it sent meanwhile was refused, and nothing that had been accepted broke off.
    assert load.report["failed"] > 0, load.report
    load.assert_only_retryable_failures()
    assert set(load.report["errors"]) <= {"InternalServerError", "APIConnectionError", "APITimeoutError"}, load.report
    assert ask(env, model, QUESTION)["choices"][0]["message"]["content"] == before
    assert {pod.metadata.uid for pod in model.pods()} == pods, "pods stay"
    assert sum(s.restart_count for p in model.pods() for s in p.status.container_statuses) == 0


def test_a_rank_that_is_lost_while_its_group_sleeps_sleeps_again(env, namespace, make_model):
    model = make_model("lost-asleep", {"replicas": 1, "sleep": True})
    model.apply()
    until("a model that sleeps from the start", lambda: asleep(model, 1), 120)
    lost = model.pods()[-1]
    env.k("delete", "pod", lost.metadata.name, "-n", namespace, "--grace-period=0", "--force")
    until("its pod again, asleep",
          lambda: lost.metadata.uid not in {p.metadata.uid for p in model.pods()} and asleep(model, 1), 120)
    model.patch_spec({"sleep": False})
    model.wait_settled(1)
    wait_answer(env, model)
