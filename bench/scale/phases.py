"""What is measured, one function for each phase. All times and counts of requests are the audit log's."""

import os
import signal
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from localcluster.shell import Failure, say, wait_for

from . import audit, usage
from .api import MODELS, collection
from .audit import Request
from .control_plane import ControlPlane
from .deepseek import GROUPS, PODS, Lease, Operator, is_ready, model

EDITOR = "admin"
REPLICAS = ("a", "b")
SHORT_LEASE = Lease(2, 1.5, 0.5)
_NUMBERS_WINDOW = 5.0


@dataclass(frozen=True)
class Made:
    models: int
    pods: int
    seconds: float  # first model received to last pod made
    ready_seconds: float  # until every model said that it is ready
    calls: int
    kinds: dict[str, int]  # the calls by verb and resource
    cpu_seconds: float  # of all replicas together, until ready
    rss_mib: list[float]  # of each replica


class Bench:
    """The cluster with the operator, the log, and where the models are."""

    def __init__(self, plane: ControlPlane, operator: Operator, log: audit.Log, namespaces: list[str]):
        self.plane = plane
        self.operator = operator
        self.log = log
        self.namespaces = namespaces

    def namespace(self, number: int) -> str:
        return self.namespaces[number % len(self.namespaces)]

    def make(self, prefix: str, count: int, limit: float) -> Made:
        """Makes `count` models as fast as the API server takes them, and waits until their groups are ready."""
        pods = count * GROUPS * PODS
        say(f"{count} models, {pods} pods")
        meters = [usage.Meter(pid) for pid in self.operator.pids()]
        self.log.read()
        seen: list[Request] = []
        self.plane.api.create_all(MODELS, [model(self.namespace(i), f"{prefix}{i}") for i in range(count)])

        def all_made() -> bool:
            seen.extend(self.log.read())
            return len(audit.created_pods(seen)) >= pods

        wait_for(f"{pods} pods", all_made, limit, f"see the logs in {self.plane.cluster.logs}")
        made = audit.created_pods(seen)
        begin = min(r.begin for r in seen if r.user == EDITOR and r.verb == "create")
        say(f"  all pods made after {max(r.end for r in made) - begin:.1f} s")
        self.wait_ready(prefix, count, limit)
        ready = time.time() - begin
        cpu = sum(meter.seconds() for meter in meters)
        seen.extend(self.quiet())
        calls = audit.of_user(seen, self.operator.user)
        return Made(count, pods, max(r.end for r in made) - begin, ready, len(calls), audit.by_kind(calls), cpu,
                    [usage.rss_mib(pid) for pid in self.operator.pids()])

    def wait_ready(self, prefix: str, count: int, limit: float) -> None:
        """Asks for one model after the other: a list of thousands, again and again, would be work for everyone."""
        def wait(i: int) -> None:
            path = collection(MODELS, self.namespace(i), f"{prefix}{i}")
            wait_for(f"the readiness of {path}", lambda: is_ready(self.plane.api.call("GET", path)), limit)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(wait, range(count)))

    def quiet(self, seconds: float = 6, limit: float = 300) -> list[Request]:
        """Waits until the operator has written nothing for so long; returns what was logged meanwhile."""
        seen: list[Request] = []
        end = time.monotonic() + limit
        last = time.monotonic()
        while time.monotonic() - last < seconds:
            if time.monotonic() > end:
                raise Failure(f"the operator has not stopped writing after {limit:.0f} s: "
                              f"{audit.by_kind(audit.writes(seen[-1000:], self.operator.user))}")
            time.sleep(0.5)
            news = self.log.read()
            seen.extend(news)
            if audit.writes(news, self.operator.user):
                last = time.monotonic()
        return seen

    def edit(self, prefix: str, edits: int) -> list[float]:
        """Seconds from each edit (one more group, a model each) to the first pod made for it."""
        say(f"{edits} edits")
        self.log.read()
        for i in range(edits):
            self.plane.api.merge(MODELS, self.namespace(i), f"{prefix}{i}", {"spec": {"replicas": GROUPS + 1}})
            time.sleep(0.1)  # a quiet system is asked, not a queue
        found = audit.reactions(self.quiet(), EDITOR, MODELS[1], self.operator.user, "pods")
        if len(found) != edits:
            raise Failure(f"the operator has reacted to {len(found)} of {edits} edits")
        return found


@dataclass(frozen=True)
class Steady:
    seconds: float
    writes: dict[str, int]  # by verb and resource
    reads: int
    cpu_percent: list[float]  # of one core, of each replica
    rss_mib: list[float]
    peak_mib: list[float]


def steady(bench: Bench, minutes: float) -> Steady:
    """Nothing happens: what the operator does nevertheless."""
    operator = bench.operator
    say(f"steady for {minutes:g} min")
    bench.log.read()
    meters = [usage.Meter(pid) for pid in operator.pids()]
    time.sleep(60 * minutes)
    percents = [meter.percent() for meter in meters]
    calls = audit.of_user(bench.log.read(), operator.user)
    return Steady(60 * minutes, audit.by_kind(c for c in calls if c.is_write), sum(not c.is_write for c in calls),
                  percents, [usage.rss_mib(p) for p in operator.pids()], [usage.peak_mib(p) for p in operator.pids()])


@dataclass(frozen=True)
class Numbers:
    seconds: float
    writes: int
    most_in_window: int  # of one model within 5 s
    shortest_gap: float
    cpu_percent: list[float]


def changing_numbers(bench: Bench, seconds: float) -> Numbers:
    """The numbers of every leader change every second: how often they are written."""
    operator = bench.operator
    say(f"changing numbers for {seconds:g} s")
    bench.log.read()
    meters = [usage.Meter(pid) for pid in operator.pids()]
    os.kill(bench.plane.pid("leaders"), signal.SIGUSR1)
    time.sleep(seconds)
    percents = [meter.percent() for meter in meters]
    writes = audit.writes(bench.log.read(), operator.user)
    os.kill(bench.plane.pid("leaders"), signal.SIGUSR2)
    bench.quiet()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in writes:
        times[one.namespace, one.owner].append(one.begin)
    gaps = [b - a for each in times.values() for a, b in zip(sorted(each), sorted(each)[1:])]
    return Numbers(seconds, len(writes),
                   max((audit.most_within(each, _NUMBERS_WINDOW) for each in times.values()), default=0),
                   min(gaps, default=float("nan")), percents)


def failover(bench: Bench, prefix: str, rounds: int) -> list[float]:
    """Seconds from the leader's SIGKILL to the other's first pod for an edit that was made right after it."""
    operator = bench.operator
    found = []
    for i in range(rounds):
        leader = operator.leader()
        say(f"killing the leader {leader}, {i + 1} of {rounds}")
        bench.log.read()
        killed = time.time()
        operator.stop(leader, signal.SIGKILL)
        name, namespace = f"{prefix}{i}", bench.namespace(i)
        one = bench.plane.api.call("GET", collection(MODELS, namespace, name))
        bench.plane.api.merge(MODELS, namespace, name, {"spec": {"replicas": one["spec"]["replicas"] + 1}})
        seen: list[Request] = []

        def right_write() -> Request | None:
            seen.extend(bench.log.read())
            return next((r for r in audit.created_pods(seen)
                         if (r.namespace, r.owner) == (namespace, name) and r.begin > killed), None)

        wait_for("the next leader's write", right_write, 120)
        found.append(right_write().begin - killed)
        operator.start(leader, SHORT_LEASE)
        operator.wait_synced(leader)
        bench.quiet(seconds=3)
    return found


@dataclass(frozen=True)
class Restart:
    synced_seconds: float  # from its start to full caches
    idle_seconds: float  # until it leads, has looked at every model and nothing waits
    writes: int
    rss_mib: float


def restart(bench: Bench, lease: Lease) -> Restart:
    """One replica from nothing, with everything there already."""
    operator = bench.operator
    say("restart")
    for replica in REPLICAS:
        operator.stop(replica)
    bench.log.read()
    begin = time.monotonic()
    operator.start("a", lease)
    operator.wait_synced("a")
    synced = time.monotonic() - begin

    def idle() -> bool:
        leads = operator.metric("a", "leader_election_master_status") == 1
        return leads and operator.metric("a", "workqueue_depth") == 0

    wait_for("the end of all first looks", idle, 300)
    idle_after = time.monotonic() - begin
    writes = audit.writes(bench.quiet(), operator.user)
    return Restart(synced, idle_after, len(writes), usage.rss_mib(operator.pid("a")))
