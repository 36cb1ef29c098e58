"""What is done to an operator and what it cost, one function for each phase. All times and counts of requests are the
audit log's."""

import os
import signal
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from localcluster.shell import Failure, say, wait_for

from . import audit, usage
from .api import MODELS, collection
from .audit import Request
from .control_plane import ControlPlane
from .deepseek import Lease, Operator
from .subject import GROUPS, PODS, Subject

EDITOR = "admin"
REPLICAS = ("a", "b")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager")  # what works for an operator besides itself
SHORT_LEASE = Lease(2, 1.5, 0.5)
_NUMBERS_WINDOW = 5.0


@dataclass(frozen=True)
class Made:
    objects: int
    pods: int
    seconds: float  # first object received to last pod made
    ready_seconds: float  # until every object said that it is ready
    kinds: dict[str, int]  # calls by verb and resource
    users: dict[str, int]  # the same calls by who made them
    cpu_seconds: float  # of all replicas together, until ready
    control_plane_cpu_seconds: float  # of CONTROL_PLANE meanwhile
    rss_mib: list[float]  # of each replica

    @property
    def calls(self) -> int:
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Edits:
    """Seconds, one for each edit."""

    answered: list[float]  # by the API server itself, which is part of the others
    first_write: list[float]  # of anything
    first_pod: list[float]


class Bench:
    """The cluster with the operator, the log, and where the objects are."""

    def __init__(self, plane: ControlPlane, subject: Subject, log: audit.Log, namespaces: list[str]):
        self.plane = plane
        self.subject = subject
        self.log = log
        self.namespaces = namespaces

    def namespace(self, number: int) -> str:
        return self.namespaces[number % len(self.namespaces)]

    def make(self, prefix: str, count: int, limit: float) -> Made:
        """Makes `count` objects as fast as the API server takes them, and waits until their groups are ready."""
        pods = count * GROUPS * PODS
        say(f"{self.subject.name}: {count} objects, {pods} pods")
        meters = [usage.Meter(pid) for pid in self.subject.pids()]
        around = [usage.Meter(self.plane.pid(name)) for name in CONTROL_PLANE]
        self.log.read()
        seen: list[Request] = []
        self.plane.api.create_all(
            self.subject.resource, [self.subject.make(self.namespace(i), f"{prefix}{i}") for i in range(count)])

        def all_made() -> bool:
            seen.extend(self.log.read())
            return len(audit.created_pods(seen)) >= pods

        wait_for(f"{pods} pods", all_made, limit, f"see the logs in {self.plane.cluster.logs}")
        made = audit.created_pods(seen)
        begin = min(r.begin for r in seen if r.user == EDITOR and r.verb == "create")
        say(f"  all pods made after {max(r.end for r in made) - begin:.1f} s")
        self.wait_ready(prefix, count, limit)
        ready = time.time() - begin
        cpu, cpu_around = (sum(meter.seconds() for meter in each) for each in (meters, around))
        seen.extend(self.quiet())
        calls = audit.of_users(seen, self.subject.users)
        return Made(count, pods, max(r.end for r in made) - begin, ready, audit.by_kind(calls),
                    dict(Counter(r.user for r in calls)), cpu, cpu_around,
                    [usage.rss_mib(pid) for pid in self.subject.pids()])

    def wait_ready(self, prefix: str, count: int, limit: float) -> None:
        """Asks for one object after the other: a list of thousands, again and again, would be work for everyone."""
        def wait(i: int) -> None:
            path = collection(self.subject.resource, self.namespace(i), f"{prefix}{i}")
            wait_for(f"the readiness of {path}", lambda: self.subject.is_ready(self.plane.api.call("GET", path)), limit)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(wait, range(count)))

    def quiet(self, seconds: float = 6, limit: float = 300) -> list[Request]:
        """Waits until the operator has written nothing for so long; returns what was logged meanwhile."""
        seen: list[Request] = []
        end = time.monotonic() + limit
        last = time.monotonic()
        while time.monotonic() - last < seconds:
            if time.monotonic() > end:
                raise Failure(f"{self.subject.name} has not stopped writing after {limit:.0f} s: "
                              f"{audit.by_kind(audit.writes(seen[-1000:], self.subject.users))}")
            time.sleep(0.5)
            news = self.log.read()
            seen.extend(news)
            if audit.writes(news, self.subject.users):
                last = time.monotonic()
        return seen

    def edit(self, prefix: str, edits: int, limit: float) -> Edits:
        """The pods of one more group, an object each."""
        say(f"{edits} edits")
        resource = self.subject.resource
        self.log.read()
        seen: list[Request] = []

        def found(*written: str) -> list[float]:
            return audit.reactions(seen, EDITOR, resource[1], self.subject.users, *written)

        def all_made() -> bool:
            seen.extend(self.log.read())
            return len(found("pods")) == edits

        for i in range(edits):
            self.plane.api.merge(resource, self.namespace(i), f"{prefix}{i}", self.subject.grown())
            time.sleep(0.1)  # a quiet system is asked, not a queue
        wait_for(f"a pod of {self.subject.name} for each of {edits} edits", all_made, limit)
        seen.extend(self.quiet())
        return Edits(audit.durations(seen, EDITOR, resource[1]), found(), found("pods"))


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
    subject = bench.subject
    say(f"steady for {minutes:g} min")
    bench.log.read()
    meters = [usage.Meter(pid) for pid in subject.pids()]
    time.sleep(60 * minutes)
    percents = [meter.percent() for meter in meters]
    calls = audit.of_users(bench.log.read(), subject.users)
    return Steady(60 * minutes, audit.by_kind(c for c in calls if c.is_write), sum(not c.is_write for c in calls),
                  percents, [usage.rss_mib(p) for p in subject.pids()], [usage.peak_mib(p) for p in subject.pids()])


@dataclass(frozen=True)
class Costs:
    """What any subject is asked for, in this order."""

    made: list[Made]
    steady: Steady
    edits: Edits


def costs(bench: Bench, objects: int, minutes: float, edits: int, limit: float) -> Costs:
    """With at most 100 objects first and the rest after them, each part with times of its own."""
    first = min(100, objects)
    made = [bench.make("m", first, limit)]
    if objects > first:
        made.append(bench.make("n", objects - first, limit))
    return Costs(made, steady(bench, minutes), bench.edit("m", min(edits, first), limit))


@dataclass(frozen=True)
class Numbers:
    seconds: float
    writes: int
    most_in_window: int  # of one model within 5 s
    shortest_gap: float
    cpu_percent: list[float]


def changing_numbers(bench: Bench, seconds: float) -> Numbers:
    """The numbers of every leader change every second: how often they are written."""
    subject = bench.subject
    say(f"changing numbers for {seconds:g} s")
    bench.log.read()
    meters = [usage.Meter(pid) for pid in subject.pids()]
    os.kill(bench.plane.pid("leaders"), signal.SIGUSR1)
    time.sleep(seconds)
    percents = [meter.percent() for meter in meters]
    writes = audit.writes(bench.log.read(), subject.users)
    os.kill(bench.plane.pid("leaders"), signal.SIGUSR2)
    bench.quiet()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in writes:
        times[one.namespace, one.owner].append(one.begin)
    gaps = [b - a for each in times.values() for a, b in zip(sorted(each), sorted(each)[1:])]
    return Numbers(seconds, len(writes),
                   max((audit.most_within(each, _NUMBERS_WINDOW) for each in times.values()), default=0),
                   min(gaps, default=float("nan")), percents)


def failover(bench: Bench, operator: Operator, prefix: str, rounds: int) -> list[float]:
    """Seconds from the leader's SIGKILL to the other's first pod for an edit that was made right after it."""
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


def restart(bench: Bench, operator: Operator, lease: Lease) -> Restart:
    """One replica from nothing, with everything there already."""
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
    writes = audit.writes(bench.quiet(), operator.users)
    return Restart(synced, idle_after, len(writes), usage.rss_mib(operator.pid("a")))
