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
