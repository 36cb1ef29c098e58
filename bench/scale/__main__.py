"""What the operator costs with a thousand models; a table on standard output.

Run by `make bench-operator`. Nothing is asserted: the column "aim" says what we want, the others what was seen.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from localcluster.layout import layout
from localcluster.shell import Failure, say

from . import audit, phases, report, usage
from .api import MODELS
from .control_plane import ControlPlane
from .deepseek import GROUPS, PODS, Lease, Operator
from .phases import REPLICAS, SHORT_LEASE


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-operator BENCH_ARGS=...", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=1000,
                        help=f"of {GROUPS * PODS} pods each; the time to make them is measured with at most 100, too")
    parser.add_argument("--minutes", type=float, default=10, help="of the steady state")
    parser.add_argument("--numbers-seconds", type=float, default=30, help="for which the status numbers change")
    parser.add_argument("--edits", type=int, default=100, help="one for each of the first models, at most 100")
    parser.add_argument("--kills", type=int, default=5, help="of the leader")
    parser.add_argument("--nodes", type=int, default=100)
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


def measure(plane: ControlPlane, args: argparse.Namespace) -> str:
    namespaces = [f"team-{i}" for i in range(10)]
    plane.namespaces(namespaces)
    operator = Operator(plane, args.operator, args.helm)
    bench = phases.Bench(plane, operator, audit.Log(plane.audit_log), namespaces)
    table = report.Table()

    start(operator, Lease())
    first = min(100, args.models)
    report.made(table, bench.make("m", first, args.limit))
    if args.models > first:
        report.made(table, bench.make("n", args.models - first, args.limit))
    table.section(f"all {args.models} models")
    report.steady(table, phases.steady(bench, args.minutes))
    report.numbers(table, phases.changing_numbers(bench, args.numbers_seconds))
    report.edits(table, bench.edit("m", min(args.edits, first)))
    stop(operator)

    start(operator, SHORT_LEASE)
    bench.quiet()
    report.failover(table, SHORT_LEASE, phases.failover(bench, "m", args.kills))
    report.restart(table, phases.restart(bench, SHORT_LEASE))
    return table.markdown()


def main() -> int:
    args = arguments()
    # Thousands of streams, for us and for all that we start.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    policy = audit.policy(Operator.user, phases.EDITOR, MODELS[0].split("/")[0], MODELS[1])
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {usage.machine()}", flush=True)
    try:
        table = measure(ControlPlane(layout(args.cluster), args.programs, policy, args.nodes), args)
    except Failure as why:
        print(f"bench-operator: {why}", file=sys.stderr)
        return 1
    print(f"load at the end {usage.load()}\n\n{table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
