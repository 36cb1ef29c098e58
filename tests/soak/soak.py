"""A worker under many clients of every kind, for a time, and what must be true at the end:

    tests/soak/soak.py --worker build/release/deepseek-worker --seconds 60 [--clients 1000] [--seed 1]

- no crash, no wrong status, no right request lost;
- all KV blocks back, nothing waiting or running, no connection left, and a right answer to a last question;
- memory that does not grow: the last quarter's mean is at most a tenth above the second quarter's;
- SIGTERM ends it with 0 (with sanitizers that includes: no leak).

Exits with 1 and says which of these failed. The seed repeats what each client does, not the order of events.
"""

import argparse
import asyncio
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

from clients import BEHAVIOURS, Server, ask, chat, head, send

ROOT = Path(__file__).resolve().parents[2]


def is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:  # closed since the folder was listed
        return False


class Worker:
    def __init__(self, program: str, log: Path):
        self.log = log
        environment = dict(os.environ)
        # Freed memory that a sanitizer holds back is not the program's; a small store of it keeps the curve readable.
        environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"
        self.process = subprocess.Popen(
            [program, "--model", str(ROOT / "models" / "deepseek-tiny"), "--host", "127.0.0.1", "--port", "0",
             "--internal-port", "0", "--drain-unready", "1",
             # A small KV cache is full of cached prefixes, and so as large as it gets, after seconds.
             "--kv-cache-tokens", "8192"], stderr=log.open("wb"), env=environment)
        port = self.said(r"listening .* port=(\d+)")
        self.server = Server("127.0.0.1", int(port.group(1)))
        self.said("engine serves")
        self.takes_requests()

    def said(self, pattern: str, limit: float = 120) -> re.Match:
        end = time.monotonic() + limit
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(pattern, self.log.read_text(errors="replace")):
                return found
            time.sleep(0.05)
        sys.exit(f"the worker did not say '{pattern}': see {self.log}")

    def takes_requests(self) -> None:
        """The engine serves a moment before the server hands it requests."""
        url = f"http://127.0.0.1:{self.server.port}/health/ready"
        while self.process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=30)
                return
            except urllib.error.HTTPError:
                time.sleep(0.05)
        sys.exit(f"the worker has ended: see {self.log}")

    def rss_mib(self) -> float:
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))

    def connections(self) -> int:
        return sum(is_socket(fd) for fd in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def metric(self, name: str) -> float:
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/metrics", timeout=30).read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


class Run:
    def __init__(self, worker: Worker, seconds: float, seed: int):
        self.worker, self.seconds, self.seed = worker, seconds, seed
        self.seen: dict[str, Counter[str]] = defaultdict(Counter)
        self.wrong: list[str] = []
        self.memory: list[float] = []
        self.most_connections = 0

    async def client(self, number: int, end: float) -> None:
        rng = random.Random(self.seed * 1_000_003 + number)
        while time.monotonic() < end:
            one = rng.choices(BEHAVIOURS, [b.weight for b in BEHAVIOURS])[0]
            name = one.act.__name__
            try:
                status = await asyncio.wait_for(one.act(self.worker.server, rng), 240)
                self.seen[name][str(status)] += 1
                if status not in one.right:
                    self.wrong.append(f"{name}: HTTP {status}, not one of {sorted(one.right)}")
            except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.TimeoutError) as error:
                kind = type(error).__name__
                self.seen[name][kind] += 1
                # Whoever sends rubbish may find the connection closed under it; a right request may not.
                if 200 in one.right and name != "broken_json":
                    self.wrong.append(f"{name}: {kind} {error}")
            await asyncio.sleep(rng.random() * 0.2)

    async def watch(self, end: float) -> None:
        while time.monotonic() < end and self.worker.process.poll() is None:
            self.memory.append(self.worker.rss_mib())
            self.most_connections = max(self.most_connections, self.worker.connections())
            await asyncio.sleep(0.5)

    async def load(self, clients: int) -> None:
        end = time.monotonic() + self.seconds
        await asyncio.gather(self.watch(end), *(self.client(n, end) for n in range(clients)))


def wait_until(what: str, probe, failures: list[str], limit: float = 90) -> None:
    end = time.monotonic() + limit
    while not (value := probe())[0]:
        if time.monotonic() > end:
            failures.append(f"{what}: {value[1]}")
            return
        time.sleep(0.2)


def judge(worker: Worker, run: Run, before: int) -> list[str]:
    if worker.process.poll() is not None:
        return [f"the worker ended with {worker.process.returncode}: see {worker.log}"]
    failures = [f"{count} x {what}" for what, count in Counter(run.wrong).most_common(10)]
    for name in ("dsm_requests_waiting", "dsm_requests_running", "dsm_kv_cache_used_ratio"):
        wait_until(f"{name} goes back to 0",
                   lambda name=name: ((value := worker.metric(name)) == 0, value), failures)
    wait_until("all connections are closed", lambda: ((left := worker.connections()) <= before, left), failures)

    async def last() -> tuple[int, bytes]:
        body = chat(random.Random(1), False, 20, "What is 17+25?").replace(b"0.7", b"0")
        return await send(worker.server, head("/v1/chat/completions", len(body)) + body)

    status, answer = asyncio.run(last())
    if status != 200 or b"42" not in answer:
        failures.append(f"the last question was answered with HTTP {status}: {answer[-300:]!r}")
    for behaviour in BEHAVIOURS:
        if not run.seen[behaviour.act.__name__]:
            failures.append(f"{behaviour.act.__name__} was never tried: more seconds or clients are needed")
    if run.seen[ask.__name__]["200"] == 0:
        failures.append("no question was answered")
    quarter = len(run.memory) // 4
    early, late = statistics.mean(run.memory[quarter:2 * quarter]), statistics.mean(run.memory[3 * quarter:])
    if late > early * 1.1 + 8:
        failures.append(f"memory grows: {early:.0f} MiB in the second quarter, {late:.0f} MiB in the last")
    worker.process.send_signal(signal.SIGTERM)
    try:
        if code := worker.process.wait(timeout=120):
            failures.append(f"it ended with {code} on SIGTERM: see {worker.log}")
    except subprocess.TimeoutExpired:
        failures.append("it did not end within 120 s of SIGTERM")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=ROOT / ".local" / "log" / "soak-worker.log")
    arguments = parser.parse_args()
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    wanted = arguments.clients * 2 + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))

    worker = Worker(arguments.worker, arguments.log)
    before = worker.connections()
    run = Run(worker, arguments.seconds, arguments.seed)
    try:
        asyncio.run(run.load(arguments.clients))
        failures = judge(worker, run, before)
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
    for name, counts in sorted(run.seen.items()):
        print(f"{name:24} {dict(counts)}")
    memory = run.memory or [0.0]
    print(f"memory MiB: first {memory[0]:.0f}, most {max(memory):.0f}, last {memory[-1]:.0f}; "
          f"most sockets at once {run.most_connections}; seed {arguments.seed}")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    print(f"soak: {sum(sum(c.values()) for c in run.seen.values())} exchanges in {arguments.seconds:.0f} s, "
          f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
