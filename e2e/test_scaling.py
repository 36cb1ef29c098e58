"""Groups follow the load: Kubernetes' own HorizontalPodAutoscaler reads the operator's numbers and sets replicas."""

import json
import threading
import time

from kubernetes import client

from support.environment import REPORT_FOLDER
from support.load import Load
from support.plot import write_svg
from support.wait import until

ROOT_PATH = "/apis/external.metrics.k8s.io/v1beta1"
API_SERVICE = "v1beta1.external.metrics.k8s.io"
WINDOW_S = 10  # a short one, so that groups go within the test

# One request at a time in a group, and that slowly, so that a few clients make a queue.
SPEC = {"template": {"resources": {"limits": {"cpu": "100m"}}},
        "parallelism": {"tensor": 1}, "replicas": 1, "engine": {"maxNumSeqs": 1}, "drainSeconds": 30,
        "scaling": {"minReplicas": 1, "maxReplicas": 3, "queueDepth": 1, "scaleDownWindowSeconds": WINDOW_S}}


def raw(env, model, metric: str, *more: str):
    path = f"{ROOT_PATH}/namespaces/{model.namespace}/{metric}?labelSelector=model%3D{model.name}"
    return env.run(env.kubectl, "get", "--raw", path, *more, check=False)


def served(env, model, metric: str = "dsm_queue_depth") -> int:
    done = raw(env, model, metric)
    if done.returncode != 0:
        raise LookupError(done.stderr)
    items = json.loads(done.stdout)["items"]
    assert len(items) == 1 and items[0]["metricLabels"] == {"model": model.name}, items
    return int(items[0]["value"])


def scaling(model, status: str, reason: str) -> bool:
    condition = model.condition("ScalingActive")
    return (condition.get("status"), condition.get("reason")) == (status, reason)


class Recorder(threading.Thread):
    """Looks twice a second at what is served, wanted and ready."""

    def __init__(self, env, model):
        super().__init__(daemon=True)
        self.env, self.model = env, model
        self.begin = time.monotonic()
        self.rows: list[tuple[float, int | None, int, int]] = []
        self.ending = threading.Event()

    def now(self) -> float:
        return time.monotonic() - self.begin

    def run(self) -> None:
        while not self.ending.wait(0.5):
            try:
                queue = served(self.env, self.model)
            except LookupError:  # not known at this moment
                queue = None
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
        with Load(env, model, threads=8) as heavy:
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
    # Nine clients, and at most three requests under way: there is always a queue.
    during = [row[1] for row in recorder.rows if queued < row[0] < ended and row[1] is not None]
    assert during and min(during) > 0, recorder.rows
    assert shrunk - ended > WINDOW_S - 2
    print(f"grew to 3 groups {grown - queued:.1f} s after the queue was seen, "
          f"shrank to 1 group {shrunk - ended:.1f} s after the load ended (window {WINDOW_S} s)")


def test_a_foreign_metrics_server_is_left_alone(env, operator, namespace, make_model):
    model = make_model("bystander", SPEC)
    model.apply()
    model.wait_settled(1)
    until("an autoscaler that works", lambda: scaling(model, "True", "AsWanted"), 60)
    try:
        foreign = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}, "ownerReferences": None},
                   "spec": {"service": {"namespace": namespace, "name": "adapter"}}}
        env.k("patch", "apiservice", API_SERVICE, "--type=merge", "-p", json.dumps(foreign))
        until("a condition that says so", lambda: scaling(model, "False", "ForeignMetricsServer"), 60)
        assert f"{namespace}/adapter" in model.condition("ScalingActive")["message"]
        autoscalers = client.AutoscalingV2Api()
        until("the end of the autoscaler",
              lambda: not autoscalers.list_namespaced_horizontal_pod_autoscaler(namespace).items, 30)
        there = json.loads(env.k("get", "apiservice", API_SERVICE, "-o", "json"))
        assert there["spec"]["service"]["name"] == "adapter"
    finally:
        env.k("delete", "apiservice", API_SERVICE)
    until("our own again", lambda: scaling(model, "True", "AsWanted"), 60)
    until("a number", lambda: served(env, model) == 0, 30)
