"""gitops/argocd on the cases that lie beside its scripts."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from argocd import MODEL, run


def load(path):
    return yaml.safe_load(path.read_text())


def cases(path, kind):
    return [pytest.param(path.parent, case, id=case.get("action", "") + Path(case["inputPath"]).stem)
            for case in load(path)[kind]]


def merge(target, patch):
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            target[key] = merge(target.get(key) or {}, value)
        else:
            target[key] = value
    return target


@pytest.mark.parametrize("folder, case", cases(MODEL / "health_test.yaml", "tests"))
def test_health(folder, case):
    assert run(MODEL / "health.lua", load(folder / case["inputPath"])) == case["healthStatus"]


@pytest.mark.parametrize("folder, case", cases(MODEL / "actions/action_test.yaml", "discoveryTests"))
def test_actions_that_are_offered(folder, case):
    offered = run(MODEL / "actions/discovery.lua", load(folder / case["inputPath"]))
    assert {name for name, one in offered.items() if not one.get("disabled")} == set(case["enabled"])
    scripts = {path.parent.name for path in MODEL.glob("actions/*/action.lua")}
    assert set(offered) == scripts


@pytest.mark.parametrize("folder, case", cases(MODEL / "actions/action_test.yaml", "actionTests"))
def test_an_action_changes_just_what_it_says(folder, case):
    before = load(folder / case["inputPath"])
    after = run(MODEL / "actions" / case["action"] / "action.lua", before)
    wanted = merge(copy.deepcopy(before), case["expected"])
    for part in (lambda obj: obj["spec"].get("template", {}), lambda obj: obj["metadata"]):
        annotations = part(after).get("annotations", {})
        for key, value in part(wanted).get("annotations", {}).items():
            if value.endswith("<now>"):
                annotations[key] = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", "<now>", annotations[key])
    assert after == wanted


def test_the_configmap_holds_these_scripts():
    data = load(MODEL.parents[1] / "argocd-cm.yaml")["data"]
    assert data["resource.customizations.health.deepseek-operator.io_DeepSeekModel"] == (MODEL / "health.lua").read_text()
    actions = yaml.safe_load(data["resource.customizations.actions.deepseek-operator.io_DeepSeekModel"])
    assert actions["discovery.lua"] == (MODEL / "actions/discovery.lua").read_text()
    assert {one["name"]: one["action.lua"] for one in actions["definitions"]} == {
        path.parent.name: path.read_text() for path in MODEL.glob("actions/*/action.lua")}
