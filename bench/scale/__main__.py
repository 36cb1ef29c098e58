"""What the operator costs with a thousand models; a table on standard output, and one of it beside its peers.

Run by `make bench-operator`. Nothing is asserted: the column "aim" says what we want, the others what was seen.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from localcluster.layout import layout
from localcluster.shell import Failure, say

from . import audit, compare, phases, report, usage
from .compare import Measured
from .control_plane import ControlPlane
from .deepseek import Lease, Operator
from .kserve import KServe
from .lws import LeaderWorkerSet
from .peer import Peer
from .phases import REPLICAS, SHORT_LEASE, Costs
from .subject import GROUPS, PODS

NAMESPACES = [f"team-{i}" for i in range(10)]
PEERS = {kind.program: kind for kind in (LeaderWorkerSet, KServe)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-operator BENCH_ARGS=...", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1000,
                        help=f"of {GROUPS * PODS} pods each; the time to make them is measured with at most 100, too")
    parser.add_argument("--minutes", type=float, default=10, help="of the steady state")
    parser.add_argument("--numbers-seconds", type=float, default=30, help="for which the status numbers change")
    parser.add_argument("--edits", type=int, default=100, help="one for each of the first models, at most 100")
    parser.add_argument("--kills", type=int, default=5, help="of the leader")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--peer", choices=(*PEERS, "all", "none"), default="all",
                        help="whose controller (built at the first time) is asked the same afterwards: "
                             "LeaderWorkerSet's, KServe's, or one after the other")
    parser.add_argument("--limit", type=float, default=1800, help="seconds until a phase that does not end is given up")
    parser.add_argument("--cluster", default="scale", help=argparse.SUPPRESS)
    for program in ("operator", "programs", "helm"):
        parser.add_argument(f"--{program}", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def start(operator: Operator, lease: Lease) -> None:
    for replica in REPLICAS:
        operator.start(replica, lease)
        operator.wait_synced(replica)


def stop(operator: Operator) -> None:
    for replica in REPLICAS:
        operator.stop(replica)


def measure(plane: ControlPlane, operator: Operator, log: audit.Log, args: argparse.Namespace) -> tuple[str, Costs]:
    bench = phases.Bench(plane, operator, log, NAMESPACES)
    table = report.Table()

    start(operator, Lease())
    costs = phases.costs(bench, args.models, args.minutes, args.edits, args.limit)
    for made in costs.made:
        report.made(table, made)
    table.section(f"all {args.models} models")
    report.steady(table, costs.steady)
    report.edits(table, costs.edits)
    report.numbers(table, phases.changing_numbers(bench, args.numbers_seconds))
    stop(operator)

    start(operator, SHORT_LEASE)
    bench.quiet()
    report.failover(table, SHORT_LEASE, phases.failover(bench, operator, "m", args.kills))
    report.restart(table, phases.restart(bench, operator, SHORT_LEASE))
    stop(operator)
    return table.markdown(), costs


def build_peers(wanted: str) -> dict[type[Peer], Path]:
    """The folders of the programs that could be built."""
    folders: dict[type[Peer], Path] = {}
    for program, kind in PEERS.items():
        if wanted not in (program, "all"):
            continue
        folder = kind.build()
        if folder is None:
            say(f"{kind.title}'s controller could not be built (why is said above): it is left out")
        else:
            folders[kind] = folder
    return folders


def measure_peers(plane: ControlPlane, folders: dict[type[Peer], Path], log: audit.Log,
                  args: argparse.Namespace) -> Iterator[Measured]:
    """Each when nothing is left of the one before that it would have to look at."""
    running: Peer | None = None
    for kind, folder in folders.items():
        plane.remove_namespaces(NAMESPACES, args.limit)
        if running is not None:
            running.stop()  # not earlier: its objects may have finalizers
        plane.namespaces(NAMESPACES)
        running = kind(plane, folder, args.helm)
        running.start()
        bench = phases.Bench(plane, running, log, NAMESPACES)
        yield Measured(running.name, phases.costs(bench, args.models, args.minutes, args.edits, args.limit))


def run(args: argparse.Namespace) -> None:
    folders = build_peers(args.peer)
    subjects = (Operator, *folders)
    policy = audit.policy([user for each in subjects for user in each.users], phases.EDITOR,
                          [each.resource for each in subjects])
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {usage.machine()}", flush=True)
    plane = ControlPlane(layout(args.cluster), args.programs, policy, args.nodes)
    plane.namespaces(NAMESPACES)
    log = audit.Log(plane.audit_log)
    table, ours = measure(plane, Operator(plane, args.operator, args.helm), log, args)
    print(f"load at the end {usage.load()}\n\n{table}", flush=True)
    theirs: list[Measured] = []
    try:
        for each in measure_peers(plane, folders, log, args):
            theirs.append(each)
    finally:  # one that fails takes nothing from the others
        if theirs:
            print(f"\nload at the end {usage.load()}\n\n{compare.table(Measured(Operator.name, ours), theirs)}")


def main() -> int:
    args = arguments()
    # Thousands of streams, for us and for all that we start.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        run(args)
    except Failure as why:
        print(f"bench-operator: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
