"""What a GitOps controller sees: no drift, owners that stay apart, and a health that is right at every moment."""

import json
import sys

from support.environment import ROOT
from support.wait import until

sys.path.insert(0, str(ROOT / "tests" / "gitops"))
from argocd import MODEL, run  # noqa: E402

OPERATOR = "deepseek-operator"


def paths(fields: dict, prefix: str = "") -> set[str]:
    """Names of the leaves of a managedFields entry."""
    out = set()
    for key, value in fields.items():
        if key == ".":
            continue
        path = f"{prefix}{key.removeprefix('f:')}"
        out |= paths(value, path + ".") if value and set(value) != {"."} else {path}
    return out


def owned_by(obj: dict, manager: str) -> set[str]:
    entries = [e for e in obj["metadata"].get("managedFields", []) if e["manager"] == manager]
    return set().union(*(paths(e["fieldsV1"]) for e in entries)) if entries else set()


def test_twenty_moves_of_an_autoscaler_leave_no_drift(env, namespace, make_model):
    """An autoscaler owns the number of groups, git owns the rest, and the operator neither."""
    model = make_model("steady", {"replicas": None, "parallelism": {"tensor": 1, "ranksPerPod": 1}})
    manifest = json.dumps(model.body)
    apply = ("apply", "--server-side", "--field-manager=gitops", "-n", namespace, "-f", "-")
    env.k(*apply, stdin=manifest)
    model.wait_settled(1)
    for move in range(20):
        model.scale(1 + move % 2)
        until("the move in the status", lambda: _seen(model), 30)
    model.scale(1)
    model.wait_settled(1)

    diff = env.run(env.kubectl, "diff", "--server-side", "--field-manager=gitops", "-n", namespace, "-f", "-",
                   stdin=manifest, check=False)
    assert (diff.returncode, diff.stdout) == (0, ""), diff.stderr
    live = model.get()
    for entry in live["metadata"]["managedFields"]:
        if entry["manager"] == OPERATOR:
            assert entry["subresource"] == "status"
    assert not any(path.startswith("spec") for path in owned_by(live, OPERATOR))
    assert "spec.replicas" not in owned_by(live, "gitops")
    # Applying the same again changes nothing, so nobody looks and nothing rolls.
    env.k(*apply, stdin=manifest)
    assert model.get()["metadata"]["generation"] == live["metadata"]["generation"]


def test_a_hundred_looks_write_nothing_to_what_the_operator_has_made(env, namespace, make_model):
    model = make_model("untouched", {"replicas": 1, "scaling": {"maxReplicas": 3}})
    model.apply()
    model.wait_settled(1)
    kinds = "pods,services,secrets,controllerrevisions,poddisruptionbudgets,horizontalpodautoscalers"

    def written() -> dict[tuple, list]:
        """Who has written what of each child, and when; statuses are others' to write."""
        children = json.loads(env.k("get", kinds, "-n", namespace, "-o", "json", "--show-managed-fields"))["items"]
        return {(one["kind"], one["metadata"]["name"]): [
            (entry["manager"], entry["operation"], entry["time"]) for entry in one["metadata"]["managedFields"]
            if entry.get("subresource") != "status"] for one in children if "ownerReferences" in one["metadata"]}

    until("an autoscaler", lambda: any(kind == "HorizontalPodAutoscaler" for kind, _ in written()), 60)
    before = written()
    assert len({kind for kind, _ in before}) == 6, before
    assert all(manager == OPERATOR for entries in before.values() for manager, *_ in entries), before
    # What can change has been applied from the beginning, so that one apply can take away what another has said.
    applied = {"Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    for (kind, _), entries in before.items():
        assert [operation for _, operation, _ in entries] == ["Apply" if kind in applied else "Update"], before
    status = model.get()["status"]
    for look in range(100):  # each is a change of the model, which is looked at
        env.k("annotate", "dsm", model.name, "-n", namespace, "--overwrite", f"look={look}")
    model.patch_spec({"recovery": {"maxRestarts": 7}})
    until("the last change in the status", lambda: _seen(model), 30)
    assert written() == before
    now = model.get()["status"]
    assert {**now, "observedGeneration": 0, "conditions": 0} == {**status, "observedGeneration": 0, "conditions": 0}


def test_helm_waits_until_a_model_of_a_chart_serves(env, namespace, make_model, tmp_path):
    """Helm's --wait reads a status as kstatus does."""
    model = make_model("charted", {"replicas": 1})
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: charted, version: 0.1.0}")
    (tmp_path / "templates" / "model.yaml").write_text(json.dumps(model.body))
    env.run(env.helm, "install", "charted", str(tmp_path), "-n", namespace, "--wait", "--timeout", "180s", timeout=240)
    assert model.settled(1), model.get()["status"]
    model.body["spec"]["image"] = "localhost/no-such-image:1"
    (tmp_path / "templates" / "model.yaml").write_text(json.dumps(model.body))
    done = env.run(env.helm, "upgrade", "charted", str(tmp_path), "-n", namespace, "--wait", "--timeout", "20s",
                   check=False, timeout=120)
    assert done.returncode != 0, done.stdout
    env.run(env.helm, "rollback", "charted", "1", "-n", namespace, "--wait", "--timeout", "180s", timeout=240)
    assert _seen(model) and model.condition("Ready")["status"] == "True", model.get()["status"]


def _seen(model) -> bool:
    live = model.get()
    return live["status"]["observedGeneration"] == live["metadata"]["generation"]


def test_the_health_is_right_from_the_first_moment(env, namespace, make_model):
    model = make_model("healthy", {"replicas": 1})
    model.apply()
    seen = []

    def health() -> str:
        status = run(MODEL / "health.lua", model.get())["status"]
        if not seen or seen[-1] != status:
            seen.append(status)
        return status

    until("Healthy", lambda: health() == "Healthy", 240, 0.1)
    assert seen == ["Progressing", "Healthy"]
    assert len(model.pods()) == 2 and model.settled(1)
    model.patch_spec({"engine": {"maxModelLen": 512}})
    assert health() == "Progressing"
    until("Healthy", lambda: health() == "Healthy", 240, 0.1)
    model.wait_settled(1)  # the earlier group has served until now, and goes
    assert health() == "Healthy"
    model.patch_spec({"image": "localhost/no-such-image:1"})
    until("Degraded", lambda: health() == "Degraded", 120, 0.2)


def test_the_plain_manifests_are_accepted(env, operator):
    done = env.run(env.kubectl, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k",
                   str(ROOT / "gitops" / "install"))
    assert "deployment.apps/deepseek-operator" in done.stdout
