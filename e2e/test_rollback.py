"""A rollback that leaves the spec alone, as Argo CD's action and dsmctl rollback --keep-spec ask for it, under traffic."""

import json
import sys

from support.environment import ROOT
from support.load import Load
from support.wait import until

sys.path.insert(0, str(ROOT / "tests" / "gitops"))
from argocd import MODEL, run  # noqa: E402

REQUEST = "deepseek-operator.io/rollback-from"


def act(env, model, name: str) -> None:
    """What Argo CD does: the action where it is offered, and its change as a merge patch."""
    live = model.get()
    assert not run(MODEL / "actions" / "discovery.lua", live)[name].get("disabled")
    after = run(MODEL / "actions" / name / "action.lua", live)
    request = (after["metadata"].get("annotations") or {}).get(REQUEST)
    env.k("patch", "dsm", model.name, "-n", model.namespace, "--type=merge", "-p",
          json.dumps({"metadata": {"annotations": {REQUEST: request}}}))


def health(model) -> str:
    return run(MODEL / "health.lua", model.get())["status"]


def test_an_action_of_argo_cd_goes_back_and_a_revert_in_git_ends_it(env, namespace, make_model):
    model = make_model("reverted", {"replicas": 1})
    model.apply()
    first = model.wait_settled(1)["status"]["currentRevision"]
    with Load(env, model) as load:
        model.patch_spec({"model": {"revision": "second"}})
        second = until("the second revision", lambda: model.settled(1) and
                       model.get()["status"]["currentRevision"] != first and model.get()["status"]["currentRevision"], 240)
        spec = model.get()["spec"]
        act(env, model, "rollback")
        until("the first revision again", lambda: model.get()["status"]["currentRevision"] == first, 240)
        until("a model that says so", lambda: model.condition("Stalled").get("reason") == "RolledBack", 60)
        until("the end of the second revision's pods", lambda: len(model.pods()) == 2, 120)
        live = model.get()
        assert live["spec"] == spec
        assert live["status"]["rollback"]["from"] == second and live["status"]["rollback"]["to"] == first
        assert live["status"]["readyReplicas"] == 1 and model.condition("Ready")["status"] == "False"
        assert health(model) == "Degraded"
        serving = {pod.metadata.uid for pod in model.pods()}
        model.patch_spec({"model": {"revision": None}})  # the revert in git, synced
        model.wait_settled(1)
        assert health(model) == "Healthy"
        assert {pod.metadata.uid for pod in model.pods()} == serving
        assert not model.get()["status"]["rollback"]["active"]
    load.assert_no_failures()


def test_what_was_rolled_back_is_rolled_out_again_on_request(env, namespace, make_model, dsmctl):
    model = make_model("forward", {"replicas": 1})
    model.apply()
    first = model.wait_settled(1)["status"]["currentRevision"]
    model.patch_spec({"model": {"revision": "second"}})
    until("the second revision", lambda: model.settled(1) and model.get()["status"]["currentRevision"] != first, 240)
    with Load(env, model) as load:
        dsmctl("rollback", "forward", "--keep-spec")
        until("the first revision again", lambda: model.condition("Stalled").get("reason") == "RolledBack", 240)
        assert "rolled back" in dsmctl("rollback", "forward", "--list")
        dsmctl("rollback", "forward", "--undo")
        until("the second revision again", lambda: model.settled(1) and
              model.get()["status"]["currentRevision"] != first, 240)
    load.assert_no_failures()
