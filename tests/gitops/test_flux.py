"""gitops/flux says the same of a model as gitops/argocd: its CEL expressions on the same cases."""

from pathlib import Path

import celpy
import pytest
import yaml
from argocd import MODEL

CASES = yaml.safe_load((MODEL / "health_test.yaml").read_text())["tests"]
EXPRESSIONS = yaml.safe_load((Path(__file__).parents[2] / "gitops/flux/healthcheckexprs.yaml").read_text())["healthCheckExprs"][0]
# Flux knows no suspended object: a paused rollout is one that is not done.
VERDICTS = {"Healthy": "Current", "Degraded": "Failed", "Progressing": "InProgress", "Suspended": "InProgress"}


def holds(expression, obj):
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return bool(program.evaluate({key: celpy.json_to_cel(obj.get(key, {})) for key in ("metadata", "spec", "status")}))


def verdict(obj):
    """In the order in which Flux asks (kustomize-controller, fluxcd/pkg/runtime/cel)."""
    for field, name in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        if field in EXPRESSIONS and holds(EXPRESSIONS[field], obj):
            return name
    return "InProgress"


@pytest.mark.parametrize("case", CASES, ids=lambda case: Path(case["inputPath"]).stem)
def test_verdict(case):
    obj = yaml.safe_load((MODEL / case["inputPath"]).read_text())
    assert verdict(obj) == VERDICTS[case["healthStatus"]["status"]]
