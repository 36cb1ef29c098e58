"""What cannot work is refused at once, or says in a condition what is wrong and what to do."""

import pytest
from kubernetes import client
from support.load import wait_answer
from support.wait import until


@pytest.mark.parametrize("spec, words", [
    ({"parallelism": {"tensor": 3}}, "tensor"),
    ({"parallelism": {"tensor": 4, "ranksPerPod": 3}}, "ranksPerPod"),
    ({"replicas": -1}, "replicas"),
    ({"model": {"uri": "ftp://somewhere"}}, "uri"),
    ({"engine": {"maxModelLen": 0}}, "maxModelLen"),
    ({"engine": {"dataParallelAttention": True}, "parallelism": {"tensor": 1, "ranksPerPod": 1}}, "tensor is 1"),
    ({"engine": {"expertParallel": True}}, "engine.deterministic to false"),
    ({"model": {"uri": "image:///models/deepseek-tiny", "quantization": "INT8", "activationQuantization": "FP8"}}, "weights in FP8"),
    ({"accelerator": {"memory": "80Gi"}}, "speak of GPUs"),
    ({"accelerator": {"resource": "amd.com/gpu"}}, "nvidia.com/gpu"),
    ({"accelerator": {"resource": "nvidia.com/gpu"}, "sleep": True}, "engine.sleepMode"),
    ({"adapters": [{"name": "a", "uri": "hf://tuned/a"}]}, "pvc://<claim>/<path>"),
    ({"adapters": [{"name": "a", "uri": "pvc://tuned/a"}] * 2}, "Duplicate"),
    ({"adapters": [{"name": "wrong", "uri": "pvc://tuned/a"}]}, "the model itself is served under"),
])
def test_a_wrong_spec_is_refused_by_the_api_server(env, namespace, make_model, spec, words):
    done = make_model("wrong", spec).apply(check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_a_name_that_children_cannot_grow_from_is_refused(env, namespace, make_model):
    done = make_model("a" * 41).apply(check=False)
    assert done.returncode != 0
    assert "40" in done.stderr


def test_a_model_that_is_not_there_says_so(env, namespace, make_model):
    model = make_model("absent", {"replicas": 1, "model": {"uri": "image:///models/nowhere"}})
    model.apply()
    model.wait_told("/models/nowhere")
    assert model.condition("Ready")["status"] == "False"
    # Mending the spec is all it takes.
    model.patch_spec({"model": {"uri": "image:///models/deepseek-tiny"}})
    model.wait_settled(1)
    wait_answer(env, model)


def test_a_service_of_somebody_else_is_not_taken_over(env, namespace, make_model):
    core = client.CoreV1Api()
    foreign = {"metadata": {"name": "taken", "labels": {"owner": "somebody"}},
               "spec": {"selector": {"app": "somebody"}, "ports": [{"port": 80}]}}
    before = core.create_namespaced_service(namespace, foreign)
    model = make_model("taken", {"replicas": 1})
    model.apply()
    condition = until("NameConflict", lambda: next(
        (c for c in model.get().get("status", {}).get("conditions", []) if c["reason"] == "NameConflict"), None), 60)
    assert "taken" in condition["message"]
    assert model.condition("Ready")["status"] == "False"
    after = core.read_namespaced_service("taken", namespace)
    assert after.metadata.resource_version == before.metadata.resource_version
    # The conflict ends when the other one goes.
    core.delete_namespaced_service("taken", namespace)
    model.wait_settled(1)
    wait_answer(env, model)
