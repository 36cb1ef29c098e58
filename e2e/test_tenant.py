"""Walls between tenants: what a DeepSeekTenant makes of its namespaces, its budget, and its keys.

Network rules are read here; test_network_rules.py tries connections."""

import json
import time
import uuid
from datetime import datetime

from kubernetes import client
from support.model import Model
from support.wait import until

ONE_POD = {"replicas": 1, "parallelism": {"tensor": 1}}


def labels_of(namespace: str) -> dict:
    return client.CoreV1Api().read_namespace(namespace).metadata.labels


def test_a_tenant_walls_its_namespace_in_and_takes_the_walls_along(env, namespace, make_tenant):
    tenant = make_tenant({"namespaces": [namespace],
                          "owners": [{"name": "alice"}],
                          "budget": {"resources": {"cpu": "4", "memory": "8Gi"}},
                          "clients": {"namespaces": ["ingress"]}})
    tenant.apply()
    assert tenant.wait_ready()["status"]["namespaces"] == "1/1"
    labels = labels_of(namespace)
    assert labels["deepseek-operator.io/tenant"] == tenant.name
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    core, network = client.CoreV1Api(), client.NetworkingV1Api()
    assert core.read_namespaced_resource_quota("deepseek-tenant", namespace).spec.hard == {
        "requests.cpu": "4", "requests.memory": "8Gi"}
    assert core.read_namespaced_limit_range("deepseek-tenant", namespace).spec.limits[0].default_request["cpu"] == "100m"
    deny = network.read_namespaced_network_policy("deepseek-tenant-default-deny", namespace).spec
    assert (deny.pod_selector.match_labels, deny.ingress, deny.egress) == (None, None, None)
    assert sorted(deny.policy_types) == ["Egress", "Ingress"]
    serving = network.read_namespaced_network_policy("deepseek-tenant-serving", namespace).spec
    assert [[port.port for port in rule.ports or []] for rule in serving.ingress] == [[], [8001], [8000, 50051]]

    # Who may do what.
    def can(user: str, verb: str, what: str) -> bool:
        return env.run(env.kubectl, "auth", "can-i", verb, what, "-n", namespace, "--as", user, check=False).stdout.strip() == "yes"

    for verb, what in [("create", "deepseekmodels.deepseek-operator.io"), ("get", "pods"), ("create", "secrets"),
                       ("patch", "secrets/deepseek-api-keys")]:
        assert can("alice", verb, what), (verb, what)
        assert not can("mallory", verb, what), (verb, what)
    for verb, what in [("create", "pods"), ("get", "secrets/any-internal"), ("patch", "resourcequotas"),
                       ("delete", "networkpolicies.networking.k8s.io"), ("create", "rolebindings.rbac.authorization.k8s.io")]:
        assert not can("alice", verb, what), (verb, what)

    # What is changed by hand is changed back; as long as the tenant is ready its status is not written.
    before = tenant.get()["metadata"]["resourceVersion"]
    env.k("patch", "resourcequota", "deepseek-tenant", "-n", namespace, "--type=merge", "-p",
          json.dumps({"spec": {"hard": {"requests.cpu": "400"}}}))
    until("the quota as it was", lambda: core.read_namespaced_resource_quota(
        "deepseek-tenant", namespace).spec.hard["requests.cpu"] == "4", 10)
    env.k("delete", "networkpolicy", "deepseek-tenant-default-deny", "-n", namespace)
    until("the rule again", lambda: network.list_namespaced_network_policy(
        namespace, field_selector="metadata.name=deepseek-tenant-default-deny").items, 10)
    env.k("annotate", "namespace", namespace, "touched=1")
    env.run("sleep", "3")
    assert tenant.get()["metadata"]["resourceVersion"] == before

    tenant.delete()
    until("no labels", lambda: "deepseek-operator.io/tenant" not in labels_of(namespace), 60)
    assert "pod-security.kubernetes.io/enforce" not in labels_of(namespace)
    until("no walls", lambda: not env.k("get", "networkpolicy,resourcequota,limitrange,rolebinding", "-n", namespace,
                                        "-o", "name").split(), 60)


def test_a_tenant_says_what_stands_in_its_way(env, namespace, make_tenant):
    first = make_tenant({"namespaces": [namespace]})
    first.apply()
    first.wait_ready()
    second = make_tenant({"namespaces": [namespace, "not-there"]})
    # Creation times have whole seconds.
    made = datetime.fromisoformat(first.get()["metadata"]["creationTimestamp"].replace("Z", "+00:00")).timestamp()
    until("a later second", lambda: time.time() > made + 1, 5, interval=0.1)
    second.apply()
    condition = until("a reason", lambda: second.condition() if second.condition().get("status") == "False" else None, 60)
    assert condition["reason"] == "NamespaceOwnedByOther"
    assert first.name in condition["message"]
    assert labels_of(namespace)["deepseek-operator.io/tenant"] == first.name
    first.delete()
    until("the next in line", lambda: labels_of(namespace).get("deepseek-operator.io/tenant") == second.name, 60)
    assert until("what is still missing", lambda: second.condition()
                 if second.condition()["reason"] == "NamespaceMissing" else None, 15)
    assert make_tenant({"namespaces": ["kube-system"]}).apply(check=False).returncode != 0


def test_a_model_beyond_the_budget_waits_and_starts_when_there_is_room(env, namespace, make_model, make_tenant):
    tenant = make_tenant({"namespaces": [namespace], "budget": {"models": 1}, "keys": {"required": False},
                          "allowed": {"models": ["image:///models/*"]}})
    tenant.apply()
    tenant.wait_ready()
    first, second = make_model("first", ONE_POD), make_model("second", ONE_POD)
    first.apply()
    first.wait_settled(1)
    second.apply()
    condition = until("QuotaExceeded", lambda: second.condition("Ready")
                      if second.condition("Ready").get("reason") == "QuotaExceeded" else None, 20)
    assert tenant.name in condition["message"]
    assert not second.pods()
    status = until("the waiting one counted", lambda: tenant.get()["status"]
                   if tenant.get()["status"]["waitingModels"] == 1 else None, 10)
    assert status["models"] == 2
    first.delete()
    second.wait_settled(1)

    foreign = make_model("foreign", {**ONE_POD, "model": {"uri": "pvc://weights/r1"}})
    foreign.apply()
    condition = until("NotAllowed", lambda: foreign.condition("Ready")
                      if foreign.condition("Ready").get("reason") == "NotAllowed" else None, 20)
    assert "spec.model.uri" in condition["message"]
    assert tenant.name in condition["message"]
    assert not foreign.pods()


def test_a_budget_counts_over_the_namespaces_of_a_tenant(env, namespace, make_namespace, make_model, make_tenant):
    other = make_namespace()
    # A pod of the example requests less than one CPU, two groups of one more than its budget.
    pod = {**ONE_POD, "template": {"resources": {"requests": {"cpu": "200m"}}}}
    tenant = make_tenant({"namespaces": [namespace, other], "budget": {"resources": {"cpu": "500m"}},
                          "keys": {"required": False}})
    tenant.apply()
    tenant.wait_ready()
    first = make_model("first", {**pod, "replicas": 2})
    first.apply()
    first.wait_settled(2)
    second = Model(env, other, "second", pod)
    second.apply()
    condition = until("QuotaExceeded", lambda: second.condition("Ready")
                      if second.condition("Ready").get("reason") == "QuotaExceeded" else None, 20)
    assert "500m cpu" in condition["message"] and not second.pods()
    assert until("what is used", lambda: tenant.get()["status"].get("used"), 60) == {"cpu": "400m"}
    first.scale(1)
    second.wait_settled(1)


def test_keys_open_the_models_and_are_revoked_within_a_second(env, local_only, namespace, make_model, make_tenant):
    tenant = make_tenant({"namespaces": [namespace]})
    tenant.apply()
    tenant.wait_ready()
    model = make_model("guarded", ONE_POD)
    model.apply()
    model.wait_settled(1)
    url = model.service_url() + "/chat/completions"
    body = json.dumps({"model": "guarded", "max_tokens": 4, "messages": [{"role": "user", "content": "What is 1+1?"}]})

    def ask(key: str = "") -> int:
        header = ["-H", f"Authorization: Bearer {key}"] if key else []
        return int(env.run(*env.in_cluster_network(
            "curl", "-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", *header,
            "-H", "Content-Type: application/json", "-d", body, url)).stdout)

    def seconds_until(status: int, key: str) -> float:
        begin = time.monotonic()
        until(f"{status} for a key", lambda: ask(key) == status, 10, interval=0.02)
        return time.monotonic() - begin

    old, new = f"sk-{uuid.uuid4().hex}", f"sk-{uuid.uuid4().hex}"
    assert ask() == 401, "without a Secret nobody is let in"
    restarts = [pod.status.container_statuses[0].restart_count for pod in model.pods()]
    tenant.set_keys(namespace, {"old": old})
    times = {"made": seconds_until(200, old)}
    assert ask() == 401
    assert ask("sk-somebody-elses-key") == 401
    tenant.set_keys(namespace, {"old": old, "new": new})
    times["rotated"] = seconds_until(200, new)
    assert ask(old) == 200
    tenant.set_keys(namespace, {"new": new})
    times["revoked"] = seconds_until(401, old)
    assert ask(new) == 200
    print("seconds until a key is known:", {name: round(value, 2) for name, value in times.items()})
    assert times["revoked"] < 1, times
    assert [pod.status.container_statuses[0].restart_count for pod in model.pods()] == restarts

    # A leader that starts again is closed until it is told, and is told.
    leader = model.pods()[0]
    env.k("delete", "pod", leader.metadata.name, "-n", namespace, "--wait=true", "--timeout=90s")
    model.wait_settled(1)
    assert ask() == 401
    assert ask(new) == 200
