"""LoRA adapters of a model: on a claim of the namespace, served by every pod under names of their own."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from kubernetes import client
from support.environment import ROOT
from support.load import Load, ask

sys.path.append(str(ROOT / "tests" / "api"))

from peft_adapter import write_adapter  # noqa: E402

QUESTION = "Count from 57 to 68."


@pytest.fixture
def claim(local_only, namespace):
    """A claim `tuned` with adapters in folders `one` and `two`. The nodes share this machine's files."""
    root = Path(tempfile.mkdtemp(prefix="dsm-adapters-"))
    for seed, name in enumerate(("one", "two")):
        write_adapter(root / name, seed)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # pods have a user of their own
    core = client.CoreV1Api()
    size, modes, volume = {"storage": "1Gi"}, ["ReadOnlyMany"], f"tuned-{namespace}"
    core.create_persistent_volume({
        "metadata": {"name": volume},
        "spec": {"capacity": size, "accessModes": modes, "hostPath": {"path": str(root)}, "storageClassName": "",
                 "claimRef": {"namespace": namespace, "name": "tuned"}, "persistentVolumeReclaimPolicy": "Retain"}})
    core.create_namespaced_persistent_volume_claim(namespace, {
        "metadata": {"name": "tuned"},
        "spec": {"accessModes": modes, "resources": {"requests": size}, "storageClassName": "", "volumeName": volume}})
    yield "tuned"
    core.delete_persistent_volume(volume)
    shutil.rmtree(root)


def said(env, model, name):
    """What is answered under a name; None when nothing has it."""
    answer = ask(env, model, QUESTION, model=name)
    if "error" in answer:
        assert answer["error"]["code"] == "model_not_found", answer
        return None
    assert answer["model"] == name
    return answer["choices"][0]["message"]["content"]


def test_adapters_are_served_beside_the_model_and_their_list_is_rolled_out(env, make_model, claim):
    one, two = ({"name": name, "uri": f"pvc://{claim}/{name}"} for name in ("one", "two"))
    model = make_model("tuned", {"replicas": 1, "adapters": [one]})  # a group of two pods
    model.apply()
    before = model.wait_settled(1)["status"]["currentRevision"]
    base, first = said(env, model, "tuned"), said(env, model, "one")
    assert base != first
    assert said(env, model, "two") is None
    # One more adapter is a new revision: another group is ready before the first one goes.
    with Load(env, model) as load:
        model.patch_spec({"adapters": [one, two]})
        after = model.wait_settled(1)["status"]["currentRevision"]
    load.assert_no_failures()
    assert after != before
    assert len({said(env, model, name) for name in ("tuned", "one", "two")}) == 3
    assert (said(env, model, "tuned"), said(env, model, "one")) == (base, first)


def test_an_adapter_that_cannot_be_served_says_so(env, make_model, claim):
    model = make_model("lost", {"replicas": 1, "adapters": [{"name": "gone", "uri": f"pvc://{claim}/nowhere"}]})
    model.apply()
    model.wait_told("/nowhere/adapter_config.json")
    model.patch_spec({"adapters": [{"name": "gone", "uri": f"pvc://{claim}/one"}]})
    model.wait_settled(1)
    assert said(env, model, "gone") is not None
