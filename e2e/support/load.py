"""Starts and ends support/traffic.py where it can reach the model's Service."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from support.environment import Environment
from support.model import Model
from support.wait import until


# What each load of this run counted, for the summary at the end: (test, report).
REPORTS: list[tuple[str, dict]] = []


class Load:
    """Use as a context manager; `report` is there afterwards. `notes` are printed beside it at the end of the run."""

    def __init__(self, env: Environment, model: Model, threads: int = 3):
        self.env, self.model, self.threads = env, model, threads
        self.report: dict = {}
        self.notes: list[str] = []

    def __enter__(self) -> "Load":
        self.proxy = None
        url = self.model.service_url()
        command = [sys.executable, str(Path(__file__).with_name("traffic.py")),
                   "--model", self.model.name, "--threads", str(self.threads), "--url"]
        if self.env.cluster_ctl:
            command = self.env.in_cluster_network(*command, url)
        else:
            # A cluster that somebody else runs: through the API server's proxy for Services.
            self.proxy = subprocess.Popen([self.env.kubectl, "proxy", "--port=0"], text=True, stdout=subprocess.PIPE,
                                          env={**os.environ, "KUBECONFIG": self.env.kubeconfig})
            address = self.proxy.stdout.readline().split()[-1]
            command.append(f"http://{address}/api/v1/namespaces/{self.model.namespace}"
                           f"/services/{self.model.name}:http/proxy/v1")
        self.process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        assert json.loads(self.process.stdout.readline())["started"]
        return self

    def __exit__(self, *exception) -> None:
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=150)
        if self.proxy:
            self.proxy.terminate()
        self.report = json.loads(output.strip().splitlines()[-1])
        test = os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].split(" ")[0]
        REPORTS.append((test, {**self.report, "notes": self.notes}))
        assert self.report["wrong"] == 0, self.report

    def assert_no_failures(self) -> None:
        assert self.report["ok"] > 0, self.report
        assert self.report["failed"] == 0, self.report

    def assert_only_retryable_failures(self) -> None:
        assert self.report["ok"] > 0, self.report
        assert self.report["retryable"] == self.report["failed"], self.report


def ask(env: Environment, model: Model, question: str, /, thinking: bool = False, path: str = "/chat/completions",
        **more) -> dict:
    """One non-streamed answer through the Service, with curl inside the network or through the API server's proxy.
    `more` are further fields of the request."""
    body = json.dumps({"model": model.name, "temperature": 0, "max_tokens": 80,
                       "messages": [{"role": "user", "content": question}],
                       "chat_template_kwargs": {"thinking": thinking}, **more})
    if env.cluster_ctl:
        done = env.run(*env.in_cluster_network(
            "curl", "-sS", "--max-time", "60", "-H", "Content-Type: application/json", "-d", body,
            model.service_url() + path))
        return json.loads(done.stdout)
    raw = f"/api/v1/namespaces/{model.namespace}/services/{model.name}:http/proxy/v1{path}"
    return json.loads(env.run(env.kubectl, "create", "--raw", raw, "-f", "-", stdin=body).stdout)


def wait_answer(env: Environment, model: Model, timeout: float = 60) -> dict:
    def probe():
        answer = ask(env, model, "What is the capital of France?")
        return answer if "Paris" in answer["choices"][0]["message"]["content"] else None

    return until(f"right answer from {model.name}", probe, timeout)
