"""Groups follow the load: Kubernetes' own HorizontalPodAutoscaler reads the operator's numbers and sets replicas."""

import json
import threading
import time
from datetime import datetime

import pytest
from kubernetes import client

from support.environment import REPORT_FOLDER
from support.load import Load
from support.plot import write_svg
from support.wait import until

ROOT_PATH = "/apis/external.metrics.k8s.io/v1beta1"
API_SERVICE = "v1beta1.external.metrics.k8s.io"
CUSTOM_PATH = "/apis/custom.metrics.k8s.io/v1beta2"
CUSTOM_API_SERVICE = "v1beta2.custom.metrics.k8s.io"
OLDER_CUSTOM_API_SERVICE = "v1beta1.custom.metrics.k8s.io"
WINDOW_S = 10  # a short one, so that groups go within the test

# One request at a time in a group, and that slowly, so that a few clients make a queue.
SPEC = {"template": {"resources": {"limits": {"cpu": "100m"}}},
        "parallelism": {"tensor": 1}, "replicas": 1, "engine": {"maxNumSeqs": 1}, "drainSeconds": 30,
        "scaling": {"minReplicas": 1, "maxReplicas": 3, "queueDepth": 1, "scaleDownWindowSeconds": WINDOW_S}}


def raw(env, model, metric: str, *more: str):
    path = f"{ROOT_PATH}/namespaces/{model.namespace}/{metric}?labelSelector=model%3D{model.name}"
    return env.run(env.kubectl, "get", "--raw", path, *more, check=False)


def item(env, model, metric: str) -> dict:
    """What is served; LookupError: it is not known at this moment."""
    done = raw(env, model, metric)
    if done.returncode != 0:
        raise LookupError(done.stderr)
    items = json.loads(done.stdout)["items"]
    assert len(items) == 1 and items[0]["metricLabels"] == {"model": model.name}, items
    return items[0]


def served(env, model, metric: str = "dsm_queue_depth") -> int:
    return int(item(env, model, metric)["value"])


def scaling(model, status: str, reason: str) -> bool:
    condition = model.condition("ScalingActive")
    return (condition.get("status"), condition.get("reason")) == (status, reason)


class Recorder(threading.Thread):
    """Looks twice a second at what is served, wanted and ready, and at how old the served number is."""

    def __init__(self, env, model):
        super().__init__(daemon=True)
        self.env, self.model = env, model
        self.begin = time.monotonic()
        self.rows: list[tuple[float, int | None, int, int]] = []
        self.ages: list[tuple[float, float]] = []  # (when, seconds)
        self.unknown = 0  # looks at which there was no number
        self.ending = threading.Event()

    def now(self) -> float:
        return time.monotonic() - self.begin

    def run(self) -> None:
        while not self.ending.wait(0.5):
            queue = None
            asked = time.time()
            try:
                there = item(self.env, self.model, "dsm_queue_depth")
                queue = int(there["value"])
                told = datetime.fromisoformat(there["timestamp"])
                self.ages.append((self.now(), asked - told.timestamp()))
            except LookupError:
                self.unknown += 1
            at = self.now()
            body = self.model.get()
            self.rows.append((at, queue, body["spec"]["replicas"], body["status"].get("readyReplicas", 0)))

    def __enter__(self) -> "Recorder":
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.ending.set()
        self.join(60)
        write_svg(REPORT_FOLDER / "scaling.svg", "Queue depth as served to the autoscaler, and groups", {
            "requests that wait": [(row[0], row[1]) for row in self.rows],
            "groups wanted": [(row[0], row[2]) for row in self.rows],
            "groups ready": [(row[0], row[3]) for row in self.rows]})


def leader(namespace: str) -> str:
    """Who holds the operator's Lease: "<pod>_<random>"."""
    return client.CoordinationV1Api().list_namespaced_lease(namespace).items[0].spec.holder_identity


def test_an_idle_model_is_zero_and_only_for_those_who_may_ask(env, operator, namespace, make_model):
    model = make_model("idle", SPEC)
    model.apply()
    model.wait_settled(1)
    for metric in ("dsm_queue_depth", "dsm_queue_age_seconds", "dsm_requests_running", "dsm_kv_cache_usage_ratio"):
        until(f"{metric} of an idle model", lambda m=metric: served(env, model, m) == 0, 60)
    until("an autoscaler that works", lambda: scaling(model, "True", "AsWanted"), 60)
    names = {r["name"] for r in json.loads(env.k("get", "--raw", ROOT_PATH))["resources"]}
    assert "dsm_queue_depth" in names
    missing = env.run(env.kubectl, "get", "--raw",
                      f"{ROOT_PATH}/namespaces/{namespace}/dsm_queue_depth?labelSelector=model%3Dnone", check=False)
    assert missing.returncode != 0 and "no DeepSeekModel" in missing.stderr
    stranger = raw(env, model, "dsm_queue_depth", f"--as=system:serviceaccount:{namespace}:default")
    assert stranger.returncode != 0 and "Forbidden" in stranger.stderr
    # Whatever the operator made for this goes with the chart's ClusterRole.
    owner = json.loads(env.k("get", "apiservice", API_SERVICE, "-o", "json"))["metadata"]["ownerReferences"][0]
    assert owner["kind"] == "ClusterRole"
    assert env.k("get", "clusterrole", owner["name"], "-o", "jsonpath={.metadata.uid}") == owner["uid"]


def test_groups_grow_with_the_queue_and_shrink_after_it(env, operator, namespace, make_model):
    model = make_model("scaled", SPEC)
    model.apply()
    model.wait_settled(1)
    until("an autoscaler that works", lambda: scaling(model, "True", "AsWanted"), 60)
    with Recorder(env, model) as recorder, Load(env, model, threads=1) as steady:
        with Load(env, model, threads=16) as heavy:
            until("a queue", lambda: served(env, model) > 2, 60)
            queued = recorder.now()
            until("three groups", lambda: model.get()["status"].get("readyReplicas") == 3, 120)
            grown = recorder.now()
            # Another replica answers, and leads, when the leading one dies: with the right number or none.
            holder = leader(operator)
            env.k("delete", "pod", holder.rpartition("_")[0], "-n", operator, "--grace-period=0", "--force",
                  "--wait=false")
            until("another leader", lambda: leader(operator) != holder, 60)
            until("a number after the change", lambda: served(env, model) > 0, 30)
            ended = recorder.now()
        model.wait_settled(1, 180)
        shrunk = recorder.now()
    heavy.assert_no_failures()
    steady.assert_no_failures()
    # Seventeen clients, and at most three requests under way: there is always a queue, also where clients are slow.
    during = [row[1] for row in recorder.rows if queued < row[0] < ended and row[1] is not None]
    assert during and min(during) > 0, recorder.rows
    assert shrunk - ended > WINDOW_S - 2
    ages = sorted(age for at, age in recorder.ages if queued < at < ended)
    steady.notes += [
        f"grew to 3 groups {grown - queued:.1f} s after the queue was seen",
        f"shrank to 1 group {shrunk - ended:.1f} s after the load ended (window {WINDOW_S} s)",
        f"age of the served number under load, of which up to 1 s because its time is cut to seconds: "
        f"median {ages[len(ages) // 2]:.1f} s, most {ages[-1]:.1f} s",
        f"{recorder.unknown} of {len(recorder.rows)} looks found no number"]


def api_service(env, name: str) -> dict:
    """The APIService; LookupError: there is none."""
    done = env.run(env.kubectl, "get", "apiservice", name, "-o", "json", check=False)
    if done.returncode != 0:
        raise LookupError(done.stderr)
    return json.loads(done.stdout)


def available(env, name: str) -> bool:
    conditions = api_service(env, name).get("status", {}).get("conditions", [])
    return any(one["type"] == "Available" and one["status"] == "True" for one in conditions)


def gone(env, name: str) -> bool:
    return env.run(env.kubectl, "get", "apiservice", name, check=False).returncode != 0


def said(foreign: dict) -> tuple:
    """What its owner says in an APIService."""
    return foreign["metadata"]["uid"], foreign["metadata"].get("labels"), foreign["spec"]


def autoscaler(model):
    items = client.AutoscalingV2Api().list_namespaced_horizontal_pod_autoscaler(model.namespace).items
    if not items:
        raise LookupError("no autoscaler")
    return items[0]


def reads(model, source: str) -> bool:
    """The autoscaler's own controller has had a number from there."""
    there = autoscaler(model)
    active = [one for one in there.status.conditions or [] if one.type == "ScalingActive"]
    return ([one.type for one in there.spec.metrics] == [source] and bool(active) and active[0].status == "True"
            and [one.type for one in there.status.current_metrics or []] == [source])


@pytest.fixture
def foreign_owner(env, operator):
    """Another Service has external.metrics.k8s.io, as KEDA's would; behind it something answers, so that discovery in the
    cluster stays whole. Ours comes back when it goes."""
    ours = client.CoreV1Api().read_namespaced_service("deepseek-operator-metrics-api", operator)
    client.CoreV1Api().create_namespaced_service(operator, {
        "metadata": {"name": "adapter"},
        "spec": {"selector": ours.spec.selector, "ports": [{"name": "https", "port": 443, "targetPort": "metrics-api"}]}})
    try:
        until("our own APIService", lambda: available(env, API_SERVICE), 60)
        env.k("patch", "apiservice", API_SERVICE, "--type=merge", "-p", json.dumps({
            "metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}, "ownerReferences": None},
            "spec": {"service": {"namespace": operator, "name": "adapter"},
                     "caBundle": None, "insecureSkipTLSVerify": True}}))
        yield f"{operator}/adapter"
    finally:
        env.k("delete", "apiservice", OLDER_CUSTOM_API_SERVICE, "--ignore-not-found")
        env.k("delete", "apiservice", API_SERVICE, "--ignore-not-found")
        until("our own APIService again", lambda: available(env, API_SERVICE), 60)
        until("the end of the other one", lambda: gone(env, CUSTOM_API_SERVICE), 30)
        client.CoreV1Api().delete_namespaced_service("adapter", operator)


def test_beside_a_foreign_owner_of_external_metrics_the_model_itself_has_them(
        env, operator, namespace, foreign_owner, make_model):
    before = said(api_service(env, API_SERVICE))
    until("our custom metrics", lambda: available(env, CUSTOM_API_SERVICE), 60)
    model = make_model("bystander", {**SPEC, "scaling": None})
    model.apply()
    model.wait_settled(1)
    model.patch_spec({"scaling": {**SPEC["scaling"], "maxReplicas": 2}})
    until("an autoscaler that reads the model's number", lambda: reads(model, "Object"), 120)
    assert autoscaler(model).spec.metrics[0].object.described_object.name == model.name
    until("a condition that says so", lambda: scaling(model, "True", "AsWanted"), 60)
    assert foreign_owner in model.condition("ScalingActive")["message"]
    path = f"{CUSTOM_PATH}/namespaces/{namespace}/deepseekmodels.deepseek-operator.io/{model.name}/dsm_queue_depth"
    item, = json.loads(env.k("get", "--raw", path))["items"]
    assert item["describedObject"]["name"] == model.name and item["value"] == "0"
    stranger = env.run(env.kubectl, "get", "--raw", path, f"--as=system:serviceaccount:{namespace}:default", check=False)
    assert stranger.returncode != 0 and "Forbidden" in stranger.stderr
    with Load(env, model, threads=6) as load:
        until("two groups", lambda: model.get()["status"].get("readyReplicas") == 2, 120)
    load.assert_no_failures()
    assert said(api_service(env, API_SERVICE)) == before

    # An adapter comes, with the older version of custom metrics: autoscalers would ask ours alone, so ours goes.
    env.k("create", "-f", "-", stdin=json.dumps({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": OLDER_CUSTOM_API_SERVICE},
        "spec": {"group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                 "versionPriority": 100, "insecureSkipTLSVerify": True,
                 "service": {"namespace": operator, "name": "adapter"}}}))
    adapter = said(api_service(env, OLDER_CUSTOM_API_SERVICE))
    until("a condition that says so", lambda: scaling(model, "False", "ForeignMetricsServer"), 60)
    assert model.condition("ScalingActive")["message"].count(foreign_owner) == 2
    until("the end of the autoscaler", lambda: not client.AutoscalingV2Api().list_namespaced_horizontal_pod_autoscaler(
        namespace).items, 30)
    assert gone(env, CUSTOM_API_SERVICE)
    assert said(api_service(env, API_SERVICE)) == before
    assert said(api_service(env, OLDER_CUSTOM_API_SERVICE)) == adapter

    # Both go: external metrics are ours again.
    env.k("delete", "apiservice", OLDER_CUSTOM_API_SERVICE, API_SERVICE)
    until("an autoscaler that reads external metrics", lambda: reads(model, "External"), 120)
    until("a number", lambda: served(env, model) == 0, 30)
