"""Apply, Ready, answer, describe, delete: what a newcomer does."""

import json

from kubernetes import client
from support.load import Load, ask, wait_answer
from support.wait import until


def test_apply_ready_answer_delete_leaves_nothing(env, namespace, make_model):
    model = make_model("tiny")
    model.apply()
    env.k("wait", "--for=condition=Ready", "dsm/tiny", "-n", namespace, "--timeout=240s", timeout=260)
    status = model.wait_settled(2)["status"]
    assert status["ready"] == "2/2"
    assert status["replicas"] == 2
    assert status["capacity"]["maxContext"] > 0
    # Four pods, each one rank; the selector of the scale subresource names leaders only.
    leaders = model.core.list_namespaced_pod(namespace, label_selector=status["selector"]).items
    assert len(leaders) == 2
    assert len(model.pods()) == 4

    answer = wait_answer(env, model)
    assert answer["usage"]["completion_tokens"] > 0
    thought = ask(env, model, "What is 988+15?", thinking=True)["choices"][0]["message"]
    assert "1003" in thought["content"]
    assert thought["reasoning_content"]

    table = env.k("get", "dsm", "-n", namespace).splitlines()
    assert table[0].split() == ["NAME", "READY", "DESIRED", "QUEUE", "REVISION", "AGE"]
    assert table[1].split()[:4] == ["tiny", "2/2", "2", "0"]
    assert "Groups" in env.k("explain", "dsm.spec.replicas") or "groups" in env.k("explain", "dsm.spec.replicas")

    model.delete()

    def gone():
        left = env.k("get", "pods,services,secrets,controllerrevisions", "-n", namespace, "-o", "name").split()
        return not [name for name in left if "kube-root-ca" not in name] or None

    until("empty namespace", gone, 90)


def test_nothing_is_written_while_nothing_changes(env, namespace, make_model):
    model = make_model("calm", {"replicas": 1})
    model.apply()
    model.wait_settled(1)

    def versions():
        objects = json.loads(env.k("get", "dsm,pods,services,secrets", "-n", namespace, "-o", "json"))["items"]
        return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in objects}

    # The last number changes of the start (loaded bytes, rates) may still be on their way.
    before = until("two equal readings 6 s apart", lambda: _steady(env, versions), 60)
    # A touch that changes nothing makes the operator look again.
    env.k("annotate", "dsm", "calm", "-n", namespace, "touched=1")
    after = versions()
    changed = [name for name in before if before[name] != after.get(name)]
    assert changed == ["DeepSeekModel/calm"]
    env.k("wait", "--for=condition=Ready", "dsm/calm", "-n", namespace, "--timeout=10s")
    until("the same versions again", lambda: versions() == after, 60)


def _steady(env, versions):
    before = versions()
    env.run("sleep", "6")
    return before if versions() == before else None


def test_one_two_and_four_ranks_over_pods_give_the_same_bits(env, namespace, make_model):
    shapes = {"alone": (1, 1, 1), "narrow": (2, 1, 2), "wide": (4, 2, 2), "widest": (4, 1, 4), "guessing": (2, 1, 2),
              "apart": (2, 1, 2)}
    engines = {"guessing": {"speculation": {"method": "Mtp", "tokens": 2}}, "apart": {"dataParallelAttention": True}}
    models = {}
    for name, (tensor, ranks_per_pod, _) in shapes.items():
        models[name] = make_model(name, {
            "replicas": 1, "parallelism": {"tensor": tensor, "ranksPerPod": ranks_per_pod},
            "engine": engines.get(name, {})})
        models[name].apply()
    for name, (_, _, pods) in shapes.items():
        models[name].wait_settled(1)
        assert len(models[name].pods()) == pods
    for question in ["What is 345+281?", "把 apple 翻译成中文", "Sort 9, 3, 27, 4."]:
        # A log probability is a function of all logits at its position, printed with all its digits.
        choices = [ask(env, m, question, thinking=True, logprobs=True, top_logprobs=20)["choices"][0]
                   for m in models.values()]
        assert len(choices[0]["logprobs"]["content"][0]["top_logprobs"]) == 20
        assert all(choice == choices[0] for choice in choices)


def test_scaling_up_and_down_fails_no_request(env, namespace, make_model):
    model = make_model("scaled")
    model.apply()
    model.wait_settled(2)
    with Load(env, model) as load:
        model.scale(3)
        model.wait_settled(3)
        model.scale(1)
        model.wait_settled(1)
    load.assert_no_failures()
    assert model.get()["spec"]["replicas"] == 1


def test_pods_run_without_privileges(env, namespace, make_model):
    model = make_model("guarded", {"replicas": 1})
    model.apply()
    model.wait_settled(1)
    for pod in model.pods():
        assert pod.spec.automount_service_account_token is False
        assert pod.spec.security_context.run_as_non_root
        for container in pod.spec.containers:
            assert container.security_context.read_only_root_filesystem
            assert container.security_context.capabilities.drop == ["ALL"]
            assert not any("token=" in a and "file" not in a for a in container.args or [])
    assert client.CoreV1Api().read_namespaced_service("guarded", namespace).spec.selector
