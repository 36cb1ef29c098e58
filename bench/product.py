"""Times of the whole product on a real cluster, printed as JSON lines:

- apply_to_first_token_s: from `kubectl apply` of a model (2 groups of 2 pods) to the first streamed piece of text;
- edit_to_first_write_ms: from the API server's answer to a spec edit to the first pod the operator writes for it;
- operator_rss_mib: resident memory of each operator replica afterwards.

Run by scripts/bench in the network of a cluster in which the operator is installed.
"""

import argparse
import json
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from kubernetes import client, config, watch  # noqa: E402
from support.environment import Environment  # noqa: E402
from support.model import Model  # noqa: E402
from support.wait import until  # noqa: E402


def first_token(model: Model) -> float:
    """The moment at which the first piece of text arrives; refused connections are tried again."""
    body = json.dumps({"model": model.name, "stream": True, "max_tokens": 8,
                       "messages": [{"role": "user", "content": "What is the capital of France?"}]}).encode()

    def probe():
        try:
            request = urllib.request.Request(model.service_url() + "/chat/completions", body,
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as answer:
                for line in answer:
                    if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                        return time.monotonic()
        except (OSError, client.ApiException):
            return None
        return None

    return until("first token", probe, 240, interval=0.02)


def edit_to_first_write(model: Model, revision: str) -> float:
    """Milliseconds from the answer to the edit to the watch event of the first pod made for it."""
    core = client.CoreV1Api()
    seen = {p.metadata.name for p in model.pods()}
    version = core.list_namespaced_pod(model.namespace).metadata.resource_version
    made: list[float] = []

    def follow():
        stream = watch.Watch()
        for event in stream.stream(core.list_namespaced_pod, model.namespace, resource_version=version,
                                   timeout_seconds=60):
            if event["type"] == "ADDED" and event["object"].metadata.name not in seen:
                made.append(time.monotonic())
                stream.stop()

    follower = threading.Thread(target=follow)
    follower.start()
    custom = client.CustomObjectsApi()
    custom.patch_namespaced_custom_object("deepseek-operator.io", "v1alpha1", model.namespace, "deepseekmodels",
                                          model.name, {"spec": {"model": {"revision": revision}}})
    edited = time.monotonic()
    follower.join()
    return 1e3 * (made[0] - edited)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--operator-pids", type=int, nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    env = Environment.read()
    config.load_kube_config(env.kubeconfig)
    core = client.CoreV1Api()
    namespace = f"bench-{int(time.time())}"
    core.create_namespace({"metadata": {"name": namespace}})
    try:
        applied = []
        for run in range(arguments.runs):
            model = Model(env, namespace, f"m{run}")
            begin = time.monotonic()
            model.apply()
            applied.append(first_token(model) - begin)
            model.wait_settled(2)
            if run + 1 < arguments.runs:
                model.delete()
                until("no pods", lambda m=model: not m.pods(), 120)
        print(json.dumps({"apply_to_first_token_s": [round(t, 2) for t in applied]}), flush=True)
        edits = []
        for run in range(arguments.runs):
            edits.append(edit_to_first_write(model, f"edit-{run}"))
            model.wait_settled(2)
        print(json.dumps({"edit_to_first_write_ms": [round(t, 1) for t in edits]}), flush=True)
        for pid in arguments.operator_pids:
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                rss = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:"))
            print(json.dumps({"operator_rss_mib": round(rss, 1)}), flush=True)
    finally:
        core.delete_namespace(namespace)


if __name__ == "__main__":
    main()
