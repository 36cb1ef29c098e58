"""Changing a model that serves: image and revision, group by group, under traffic."""

from kubernetes import client
from support.load import Load, wait_answer
from support.wait import until


def test_a_new_image_rolls_without_a_failed_request(env, namespace, make_model, second_worker_image):
    model = make_model("rolled")
    model.apply()
    before = model.wait_settled(2)["status"]["currentRevision"]
    with Load(env, model) as load:
        model.patch_spec({"image": second_worker_image})
        after = model.wait_settled(2)["status"]["currentRevision"]
    assert after != before
    assert {c.image for p in model.pods() for c in p.spec.containers} == {second_worker_image}
    load.assert_no_failures()


def test_a_new_model_revision_rolls_and_reverting_midway_goes_back(env, namespace, make_model):
    model = make_model("reverted")
    model.apply()
    before = model.wait_settled(2)["status"]["currentRevision"]
    serving = {pod.metadata.uid for pod in model.pods()}
    with Load(env, model) as load:
        model.patch_spec({"model": {"revision": "second"}})
        until("a pod of the new revision", lambda: len(model.pods()) > 4, 60)
        model.patch_spec({"model": {"revision": None}})
        assert model.wait_settled(2)["status"]["currentRevision"] == before
    load.assert_no_failures()
    # The groups that served were not touched.
    assert {pod.metadata.uid for pod in model.pods()} == serving
    wait_answer(env, model)


def test_a_rollout_at_the_quota_says_so_and_goes_on_within_max_unavailable(env, namespace, make_model):
    model = make_model("capped")
    model.apply()
    before = model.wait_settled(2)["status"]["currentRevision"]
    core = client.CoreV1Api()
    full = str(len(core.list_namespaced_pod(namespace).items))
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "full"}, "spec": {"hard": {"pods": full}}})
    until("a quota that counts", lambda: core.read_namespaced_resource_quota("full", namespace).status.used, 30)
    try:
        with Load(env, model) as load:
            model.patch_spec({"model": {"revision": "second"}})
            until("a rollout that waits", lambda: model.condition("Stalled")["reason"] == "SurgeUnschedulable", 120)
            assert "exceeded quota" in model.condition("Stalled")["message"]
            assert "maxUnavailable" in model.condition("Ready")["message"]
            assert model.get()["status"]["readyReplicas"] == 2
            model.patch_spec({"rollout": {"maxUnavailable": 1}})
            after = model.wait_settled(2)["status"]["currentRevision"]
    finally:
        core.delete_namespaced_resource_quota("full", namespace)
    assert after != before
    load.assert_no_failures()
