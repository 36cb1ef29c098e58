"""A real worker process for the tests here: started once, on ports that the system chooses.

DSM_WORKER names the program; without it, build/release or build/dev is used.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "deepseek-tiny"
NAME = "deepseek-tiny"


def program():
    named = os.environ.get("DSM_WORKER")
    candidates = [named] if named else ["build/release/deepseek-worker", "build/dev/deepseek-worker"]
    for candidate in candidates:
        path = ROOT / candidate
        if path.is_file():
            return path
    pytest.fail(f"no worker to test at {' or '.join(candidates)}: run `make build` first, or set DSM_WORKER")


def wait_for(condition, timeout=20):
    """Waits until something that is only visible from outside has happened."""
    pause = threading.Event()
    for _ in range(int(timeout / 0.05)):
        if condition():
            return True
        pause.wait(0.05)
    return False


class Worker:
    """A worker process. Its log is read all the time; ready() waits until it takes requests."""

    def __init__(self, *arguments, model=MODEL, binary=None, env=None):
        self.log = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [binary or program(), "--model", model, "--host", "127.0.0.1", "--port", "0", "--drain-unready", "1", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.log.append("")
            self._changed.notify_all()

    def wait_for_log(self, pattern, timeout=120):
        """The match of `pattern` in a line of the log; fails when the process ends without it."""

        def found():
            for line in self.log:
                match = re.search(pattern, line)
                if match:
                    return match
            return None

        with self._changed:
            done = self._changed.wait_for(lambda: found() or (self.log and self.log[-1] == ""), timeout)
            match = found()
        if not match:
            why = "it ended" if done else f"not within {timeout} s"
            pytest.fail(f"the worker did not say '{pattern}' ({why}):\n" + "\n".join(self.log[-30:]))
        return match

    def ready(self):
        """The engine says so before the server hands it requests: what comes in between is answered with 503."""
        self.wait_for_log("engine serves")
        assert wait_for(self._is_ready), "the engine serves, and the server does not"
        return self

    def _is_ready(self):
        try:
            return urllib.request.urlopen(self.url + "/health/ready").status == 200
        except urllib.error.HTTPError:
            return False

    @property
    def port(self):
        return int(self.wait_for_log(r"listening .* port=(\d+)").group(1))

    @property
    def internal_port(self):
        return int(self.wait_for_log(r"listening .* internal_port=(\d+)").group(1))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def metric(self, name):
        """The sum of a metric's series."""
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        lines = [line for line in text.splitlines() if line.startswith(name + "{")]
        assert lines, f"no series of {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def client(self, **options):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)

    def stop(self, sig=signal.SIGINT):
        """Asks it to end and gives its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail("the worker did not end when it was asked to:\n" + "\n".join(self.log[-30:]))


@pytest.fixture(scope="session")
def worker():
    running = Worker().ready()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def client(worker):
    return worker.client()


@pytest.fixture
def start_worker():
    """Starts workers of a test's own, and ends them with the test."""
    started = []

    def start(*arguments, **options):
        started.append(Worker(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def token_file():
    with tempfile.NamedTemporaryFile("w", suffix=".token") as file:
        file.write("a-secret-token\n")
        file.flush()
        yield file.name


@pytest.fixture
def group(token_file):
    """What two processes of one rank each are started with, but for --pod-index."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        control = str(free.getsockname()[1])
    return (
        "--tensor-parallel", "2", "--ranks-per-pod", "1", "--leader-host", "127.0.0.1", "--advertise-host",
        "127.0.0.1", "--internal-port", "0", "--internal-token-file", token_file, "--control-port", control,
    )  # fmt: skip
