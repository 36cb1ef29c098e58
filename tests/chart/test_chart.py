"""What the chart renders: the same rules for every way of installing it, read off the objects and not off the templates."""

import itertools
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "deepseek-operator"
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "APIService", "PriorityClass", "Namespace"}


@pytest.fixture(scope="session")
def helm():
    done = subprocess.run([ROOT / "scripts" / "toolchain", "helm"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


@pytest.fixture
def render(helm):
    def run(*settings: str, check: bool = True):
        command = [helm, "template", "op", CHART, "--namespace", "deepseek-system"]
        for setting in settings:
            command += ["--set", setting]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return run


WAYS = [list(way) for way in itertools.product(
    ["replicas=1", "replicas=3"], ["watchNamespace=", "watchNamespace=models"],
    ["crds.enabled=true", "crds.enabled=false"], ["aggregateRoles=true", "aggregateRoles=false"])]


@pytest.fixture(params=WAYS, ids=lambda way: ",".join(one.partition("=")[2] or "-" for one in way))
def objects(request, render):
    return render(*request.param)


def kinds(objects):
    return {one["kind"] for one in objects}


def rules(objects):
    return [(one, rule) for one in objects if one["kind"] in ("Role", "ClusterRole") for rule in one.get("rules") or []]


def test_no_right_is_a_wildcard(objects):
    for one, rule in rules(objects):
        for field in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
            assert "*" not in rule.get(field, []), f"{one['metadata']['name']}: {rule}"


def test_the_operator_never_writes_a_models_spec(objects):
    bound = {one["roleRef"]["name"] for one in objects if one["kind"].endswith("RoleBinding")}
    assert bound
    for one, rule in rules(objects):
        if one["metadata"]["name"] in bound and "deepseekmodels" in rule.get("resources", []):
            assert not {"create", "update", "patch", "delete"} & set(rule["verbs"])


def test_what_everyone_gets_is_labelled_and_named_once(objects):
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    for one in objects:
        assert one["kind"] == "CustomResourceDefinition" or "app.kubernetes.io/name" in one["metadata"]["labels"]
        scoped = one["kind"] in CLUSTER_SCOPED
        assert scoped == ("namespace" not in one["metadata"]), f"{one['kind']} {one['metadata']}"


def test_the_pods_are_restricted(objects):
    (deployment,) = [one for one in objects if one["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert not any("token" in one or "password" in one for one in container["args"])


def test_one_namespace_needs_nothing_of_the_cluster(render):
    """What somebody who owns a namespace only can install, once the definitions are there."""
    objects = render("watchNamespace=models", "crds.enabled=false", "aggregateRoles=false")
    assert not kinds(objects) & CLUSTER_SCOPED
    assert {one["metadata"]["namespace"] for one in objects} == {"deepseek-system", "models"}


def test_nodes_are_seen_only_with_rights_in_all_namespaces(render):
    """Budgets hold evictions back until the operator has moved a group, which takes a view of nodes: both or neither."""
    for setting, seen in (("watchNamespace=", True), ("watchNamespace=models", False)):
        resources = {name for _, rule in rules(render(setting)) for name in rule["resources"]}
        assert ("nodes" in resources, "poddisruptionbudgets" in resources) == (seen, seen)


def test_kueue_and_pod_groups_need_no_right_where_they_are_off(render):
    def granted(*settings):
        return {name for _, rule in rules(render(*settings)) for name in rule["resources"]} & {"podgroups", "workloads"}

    assert granted() == granted("watchNamespace=models") == {"podgroups", "workloads"}
    assert granted("coscheduling.enabled=false") == {"workloads"}
    assert granted("kueue.enabled=false") == {"podgroups"}


def test_of_api_services_only_our_own_two_can_be_changed_and_one_removed(render):
    granted = [rule for one, rule in rules(render()) if "apiservices" in rule.get("resources", [])]
    ours = {"v1beta1.external.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"}
    for rule in granted:
        names, verbs = set(rule.get("resourceNames", [])), set(rule["verbs"])
        assert names or verbs == {"create"}, rule  # making something cannot be held to a name
        if verbs & {"patch", "update"}:
            assert names <= ours, rule
        if "delete" in verbs:
            assert names == {"v1beta2.custom.metrics.k8s.io"}, rule
    readable = {name for rule in granted if "get" in rule["verbs"] for name in rule["resourceNames"]}
    assert readable == ours | {"v1beta1.custom.metrics.k8s.io"}
    without = rules(render("metricsApi.enabled=false"))
    assert not [rule for _, rule in without if "apiservices" in rule.get("resources", [])]


def test_who_callers_are_and_what_they_may_do_is_only_asked(render):
    def granted(*settings):
        reviews = {"tokenreviews", "subjectaccessreviews"}
        return [(set(rule["resources"]), rule["verbs"]) for _, rule in rules(render(*settings)) if reviews & set(rule["resources"])]

    assert sorted(granted(), key=str) == [({"subjectaccessreviews"}, ["create"]), ({"tokenreviews"}, ["create"])]
    assert granted("metricsApi.enabled=false") == granted("watchNamespace=models") == []


def test_who_may_see_models_may_read_their_numbers_in_both_metrics_apis(render):
    view = next(one for one in render() if one["metadata"]["name"].endswith("-models-view"))
    by_group = {group: rule for rule in view["rules"] for group in rule["apiGroups"]}
    external = by_group["external.metrics.k8s.io"]["resources"]
    custom = by_group["custom.metrics.k8s.io"]["resources"]
    assert external and custom == [f"deepseekmodels.deepseek-operator.io/{name}" for name in external]
    for group in ("external.metrics.k8s.io", "custom.metrics.k8s.io"):
        assert set(by_group[group]["verbs"]) <= {"get", "list"}


def test_replicas_that_can_be_lost_have_a_budget(render):
    assert "PodDisruptionBudget" not in kinds(render("replicas=1"))
    (budget,) = [one for one in render("replicas=2") if one["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] == 1


def test_the_definitions_are_those_of_the_repository_and_stay(render):
    made = {one["metadata"]["name"]: one for one in render() if one["kind"] == "CustomResourceDefinition"}
    files = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert set(made) == {one["metadata"]["name"] for one in files}
    for one in files:
        assert made[one["metadata"]["name"]]["spec"] == one["spec"]
        assert made[one["metadata"]["name"]]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "helm.sh/resource-policy" not in str(render("crds.keep=false"))
    assert "CustomResourceDefinition" not in kinds(render("crds.enabled=false"))


@pytest.mark.parametrize("setting, named", [
    ("replicas=0", "replicas"), ("replica=2", "replica"), ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("logLevel=loud", "logLevel"), ("leaderElection.leaseDurationSeconds=0", "leaseDurationSeconds"),
    ("image.operator=", "operator")])
def test_a_wrong_value_is_refused_by_name(render, setting, named):
    done = render(setting, check=False)
    assert done.returncode != 0
    assert named in done.stderr


def conform(*files, text: str = ""):
    return subprocess.run([ROOT / "scripts" / "kubeconform", *files], input=text, capture_output=True, text=True, check=False)


def test_every_object_conforms_to_its_schema(objects):
    done = conform("-summary", "-", text=yaml.safe_dump_all(objects))
    assert done.returncode == 0, done.stdout
    assert f"{len(objects)} resource" in done.stdout


def test_what_users_apply_conforms_to_its_schema():
    files = [*(ROOT / "examples").glob("*.yaml"), *(ROOT / "gitops" / "install").glob("operator.yaml")]
    done = conform(*files)
    assert len(files) > 2 and done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind, field", [("Deployment", "replicaz"), ("DeepSeekModel", "replicaz")])
def test_a_field_that_is_not_there_does_not_conform(kind, field):
    version = {"Deployment": "apps/v1", "DeepSeekModel": "deepseek-operator.io/v1alpha1"}[kind]
    wrong = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": {field: 1}}
    done = conform("-", text=yaml.safe_dump(wrong))
    assert done.returncode != 0 and field in done.stdout, done.stdout + done.stderr
