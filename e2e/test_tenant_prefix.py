"""What one tenant has asked never speeds up another's prompt: not at models of their own, and not at a leader that goes from
one tenant to the other while it runs, where its prefix cache still holds what the first one asked."""

import json
import statistics
import time
import uuid
from datetime import datetime

from kubernetes import client
from support.model import Model
from support.wait import until

ONE_POD = {"replicas": 1, "parallelism": {"tensor": 1}}
PROMPTS = [f"Case {number}. " + "What is 17+25? " * 60 for number in range(5)]


class Asker:
    """Somebody with a key, and the model that he asks."""

    def __init__(self, env, model: Model, key: str):
        self.env, self.model, self.key = env, model, key

    def ask(self, prompt: str) -> tuple[int, dict, float]:
        """The status, the answer, and the seconds that it took."""
        body = json.dumps({"model": self.model.name, "temperature": 0, "max_tokens": 1,
                           "messages": [{"role": "user", "content": prompt}]})
        output = self.env.run(*self.env.in_cluster_network(
            "curl", "-sS", "--max-time", "60", "-H", f"Authorization: Bearer {self.key}", "-H", "Content-Type: application/json",
            "-w", "\n%{http_code} %{time_total}", "-d", body, self.model.service_url() + "/chat/completions")).stdout
        answer, _, numbers = output.rpartition("\n")
        status, seconds = numbers.split()
        return int(status), json.loads(answer), float(seconds)

    def status(self) -> int:
        return self.ask("What is 1+1?")[0]

    def cached(self, prompt: str) -> tuple[int, float]:
        """How many of the prompt's tokens were found in the prefix cache, and the seconds."""
        status, answer, seconds = self.ask(prompt)
        assert status == 200, answer
        usage = answer["usage"]
        assert usage["prompt_tokens"] > 500, usage
        return usage["prompt_tokens_details"]["cached_tokens"], seconds

    def twice(self) -> list[tuple[float, float]]:
        """Asks each prompt for the first time and again: only the second finds something. Seconds of both."""
        times = []
        for prompt in PROMPTS:
            (found, first), (found_again, again) = self.cached(prompt), self.cached(prompt)
            assert found == 0, f"{found} tokens of a prompt that this tenant had not asked"
            assert found_again > 500, found_again
            times.append((first, again))
        return times


def test_a_tenants_prompts_are_not_in_the_cache_of_another(env, local_only, namespace, make_namespace, make_model, make_tenant):
    other = make_namespace()
    one, two = make_tenant({"namespaces": [namespace]}), make_tenant({"namespaces": [other]})
    one.apply()
    made = datetime.fromisoformat(one.get()["metadata"]["creationTimestamp"].replace("Z", "+00:00")).timestamp()
    until("a later second", lambda: time.time() > made + 1, 5, interval=0.1)
    two.apply()
    model, own = make_model("shared", ONE_POD), Model(env, other, "shared", ONE_POD)
    keys = {tenant.name: f"sk-{uuid.uuid4().hex}" for tenant in (one, two)}
    for tenant, where, what in ((one, namespace, model), (two, other, own)):
        tenant.wait_ready()
        tenant.set_keys(where, {"key": keys[tenant.name]})
        what.apply()
    first = Asker(env, model, keys[one.name])
    second_at_its_own, second = Asker(env, own, keys[two.name]), Asker(env, model, keys[two.name])
    for what, asker in ((model, first), (own, second_at_its_own)):
        what.wait_settled(1)
        until("an open model", lambda a=asker: a.status() == 200, 60)
    assert second.status() == 401, "keys of one tenant open nothing of the other's"

    of_first = first.twice()
    second_at_its_own.twice()

    # The namespace goes to the other tenant, which names it, too. Its model goes on running.
    leader, = model.pods()
    two.patch({"namespaces": [other, namespace]})
    one.delete()
    until("the next in line", lambda: client.CoreV1Api().read_namespace(namespace).metadata.labels.get(
        "deepseek-operator.io/tenant") == two.name, 15)
    two.wait_ready()
    two.set_keys(namespace, {"key": keys[two.name]})
    until("the keys of the new tenant", lambda: (first.status(), second.status()) == (401, 200), 60)
    of_second = second.twice()
    same, = model.pods()
    assert same.metadata.uid == leader.metadata.uid and same.status.container_statuses[0].restart_count == 0

    def median(times: list[tuple[float, float]], which: int) -> str:
        return f"{statistics.median(pair[which] for pair in times) * 1000:.0f} ms"

    print(f"one leader, median of {len(PROMPTS)} prompts: the first tenant's took {median(of_first, 0)} and again "
          f"{median(of_first, 1)}; the second tenant's, the same ones after that, {median(of_second, 0)} and again "
          f"{median(of_second, 1)}")
