"""dsmctl against a real API server: look, plan, change, go back, and what leaves the cluster in a bundle."""

import base64
import copy
import json
import os
import subprocess
import tarfile

from support.load import Load
from support.model import merge
from support.wait import until


def watched_until(env, namespace, name, text):
    """The pictures of `dsmctl status --watch` up to the first that has the text."""
    with subprocess.Popen([env.dsmctl, "status", name, "-n", namespace, "--watch"], text=True, stdout=subprocess.PIPE,
                          env={**os.environ, "KUBECONFIG": env.kubeconfig}) as watching:
        seen = ""
        try:
            for line in watching.stdout:
                seen += line
                if text in line:
                    return seen
        finally:
            watching.terminate()
    raise AssertionError(f"the watch ended without {text!r}:\n{seen}")


def test_status_plan_logs_and_bundle_tell_what_is(env, namespace, make_model, dsmctl, tmp_path):
    model = make_model("looked", {"replicas": 1})
    planned = dsmctl("plan", "-f", "-", stdin=json.dumps(model.body))
    assert "new model" in planned and "1 group made, 0 removed" in planned
    model.apply()
    seen = watched_until(env, namespace, "looked", "ready 1/1")
    assert "ready 0/1" in seen
    status = model.wait_settled(1)["status"]
    pods = sorted(pod.metadata.name for pod in model.pods())

    tree = dsmctl("status", "looked")
    assert tree.startswith(f"looked  namespace {namespace}  ready 1/1  queue 0  revision {status['currentRevision']}")
    assert all(f"{pod}  {role}  Ready  " in tree for pod, role in zip(pods, ["leader", "worker"]))
    assert tree.isascii() and "\x1b" not in tree
    whole = json.loads(dsmctl("status", "-o", "json"))["models"][0]
    assert [pod["name"] for pod in whole["groups"][0]["pods"]] == pods

    # The manifest as it is changes nothing; a changed one says what would be done, and does nothing.
    generation = model.get()["metadata"]["generation"]
    assert "nothing would be done" in dsmctl("plan", "-f", "-", stdin=json.dumps(model.body))
    changed = merge(model.body, {"spec": {"model": {"revision": "second"}}})
    planned = dsmctl("plan", "-f", "-", stdin=json.dumps(changed))
    assert 'spec.model.revision: (not set) -> "second"' in planned
    assert "1 group made, 1 removed, 0 kept" in planned
    wrong = merge(model.body, {"spec": {"parallelism": {"tensor": 3}}})
    refused = dsmctl("plan", "-f", "-", stdin=json.dumps(wrong), check=False)
    assert refused.returncode == 3
    assert "spec.parallelism.tensor: is 3; use 1, 2, 4 or 8" in refused.stdout
    assert model.get()["metadata"]["generation"] == generation
    assert sorted(pod.metadata.name for pod in model.pods()) == pods

    lines = dsmctl("logs", "looked", "--rank", "1").splitlines()
    assert lines and all(line.startswith("0/1 ") for line in lines)

    # kubectl takes the program for its command `dsm`.
    (tmp_path / "kubectl-dsm").symlink_to(env.dsmctl)
    plugin = subprocess.run([env.kubectl, "dsm", "status", "looked", "-n", namespace], text=True, capture_output=True, check=True,
                            env={"KUBECONFIG": env.kubeconfig, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert "ready 1/1" in plugin.stdout

    bundle = tmp_path / "bundle.tar.gz"
    dsmctl("support-bundle", "looked", "-o", str(bundle))
    with tarfile.open(bundle) as archive:
        files = {entry.name: archive.extractfile(entry).read().decode() for entry in archive}
    assert {"looked/model.json", "looked/events.json", f"looked/logs/{pods[0]}.log", "looked/versions.json",
            "looked/operator/pods.json"} <= set(files)
    assert "looked/errors.txt" not in files, files["looked/errors.txt"]
    token = model.core.read_namespaced_secret("looked-internal", namespace).data["token"]
    for name, content in files.items():
        assert token not in content and base64.b64decode(token).decode() not in content, name


def test_restart_rolls_and_rollback_goes_back_without_a_failed_request(env, namespace, make_model, dsmctl):
    model = make_model("rewound", {"replicas": 1})
    model.apply()
    first = model.wait_settled(1)["status"]["currentRevision"]
    before = {pod.metadata.uid for pod in model.pods()}

    def rolled():
        status = model.get()["status"]
        return status["currentRevision"] if status["currentRevision"] != first else None

    with Load(env, model) as load:
        dsmctl("restart", "rewound")
        second = until("another revision", rolled, 120)
        model.wait_settled(1)
        assert not before & {pod.metadata.uid for pod in model.pods()}
        history = dsmctl("rollback", "rewound", "--list")
        assert first in history and f"{second}   2" in history
        went = dsmctl("rollback", "rewound")
        assert f"{second} -> {first}" in went
        until("the first revision again", lambda: model.get()["status"]["currentRevision"] == first, 120)
        model.wait_settled(1)
    load.assert_no_failures()
    # What does not shape pods is not touched, and what was applied is what is asked for.
    spec = model.get()["spec"]
    assert spec["replicas"] == 1 and "annotations" not in spec.get("template", {})
    again = dsmctl("rollback", "rewound", "--to", first, check=False)
    assert again.returncode == 1 and "already" in again.stderr


def test_what_is_not_there_is_said_with_what_to_do(env, namespace, make_model, dsmctl):
    missing = dsmctl("status", "nobody", check=False)
    assert missing.returncode == 1
    assert f"there is no DeepSeekModel nobody in namespace {namespace}" in missing.stderr
    assert dsmctl("restart", check=False).returncode == 2
    gone = env.run(env.dsmctl, "version", "--kubeconfig", "/nowhere", check=False)
    assert gone.returncode == 1 and "/nowhere" in gone.stderr
    assert "v1alpha1" in dsmctl("version")
