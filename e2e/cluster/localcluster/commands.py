"""The command lines of up, down and ctl, and the one place where a Failure becomes a message."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import cluster as lifecycle
from . import components, images, network, preflight, processes
from .layout import MOST_NODES, Layout, Node, layout
from .shell import Failure, run, say, wait_for


def _parser(prog: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=about)
    parser.add_argument("--name", default=os.environ.get("DSM_CLUSTER_NAME", "demo"),
                        help="which cluster of this checkout (default: demo)")
    return parser


def _guarded(body: Callable[[], int | None]) -> int:
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"  # which a plain user's shell leaves out
    try:
        return body() or 0
    except Failure as why:
        print(f"{Path(sys.argv[0]).name}: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def up() -> int:
    parser = _parser("e2e/cluster/up", "Starts a Kubernetes cluster on this machine; does nothing if it runs already.")
    parser.add_argument("--nodes", type=int, default=1, choices=range(1, MOST_NODES + 1), help="how many (default: 1)")
    args = parser.parse_args()
    cluster = layout(args.name)

    def body() -> None:
        lifecycle.up(cluster, args.nodes)
        print(cluster.kubeconfig)

    return _guarded(body)


def down() -> int:
    parser = _parser("e2e/cluster/down", "Removes a cluster and everything that is left of it, also after a crash.")
    cluster = layout(parser.parse_args().name)
    return _guarded(lambda: lifecycle.down(cluster))


def ctl() -> int:
    parser = _parser("e2e/cluster/ctl", "Looks into a running cluster and disturbs it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, about: str, run: Callable, **arguments: dict) -> None:
        sub = commands.add_parser(name, help=about, description=about)
        for argument, options in arguments.items():
            sub.add_argument(argument, **options)
        sub.set_defaults(run=run)

    which = {"component": {"choices": components.ALL_NAMES, "metavar": "COMPONENT"}}
    rest = {"argv": {"nargs": argparse.REMAINDER, "metavar": "-- ARGUMENTS"}}
    command("status", "each component and its process", _status)
    command("restart", "stop and start a component", _restart, **which)
    command("stop", "end a component", _stop, **which)
    command("start", "start a component that was ended", _start, **which)
    command("kill", "kill a component without a chance to clean up", _kill, **which)
    command("pause", "hold a component still (SIGSTOP)", _pause, **which)
    command("resume", "let a paused component go on", _resume, **which)
    command("logs", "print a component's log", _logs, **which)
    command("nsenter", "run a command in the cluster's network, where Services and pods have their addresses",
            _nsenter, **rest)
    command("load-image", "load OCI image archives into every node", _load_image,
            archive={"nargs": "+", "type": Path, "metavar": "ARCHIVE"})
    command("tag-image", "give an image of the nodes another name", _tag_image,
            image={"metavar": "IMAGE"}, new_name={"metavar": "NEW-NAME"})
    command("ctr", "the client of the first node's containerd, for images and containers", _ctr, **rest)
    command("pod-pid", "print the process id, on this machine, of a container's first process", _pod_pid,
            namespace={"metavar": "NAMESPACE"}, pod={"metavar": "POD"},
            container={"nargs": "?", "metavar": "CONTAINER"})
    command("kill-container", "send a signal to a container's first process", _kill_container,
            namespace={"metavar": "NAMESPACE"}, pod={"metavar": "POD"}, container={"metavar": "CONTAINER"},
            signal={"nargs": "?", "default": "KILL", "metavar": "SIGNAL"})
    command("id", "the name from which all names of this cluster grow", _id)
    args = parser.parse_args()
    cluster = layout(args.name)

    def body() -> int | None:
        if not cluster.run.exists() and args.run is not _id:
            raise Failure(f"the cluster {cluster.id} does not run: start it with e2e/cluster/up --name {cluster.name}")
        return args.run(cluster, args)

    return _guarded(body)


def _id(cluster: Layout, _args: argparse.Namespace) -> None:
    print(cluster.id)


def _status(cluster: Layout, _args: argparse.Namespace) -> int:
    missing = 0
    asked_for = [name for name in components.ON_DEMAND if processes.pid_of(cluster, name)]
    for name in (*components.names(cluster), *asked_for):
        pid = processes.pid_of(cluster, name)
        missing += pid is None
        print(f"{name:24} {f'running, pid {pid}' if pid else f'NOT RUNNING, see {cluster.logs}/{name}.log'}")
    return 1 if missing else 0


def _stop(cluster: Layout, args: argparse.Namespace) -> None:
    with lifecycle.locked(cluster):
        processes.stop(cluster, args.component)


def _start(cluster: Layout, args: argparse.Namespace) -> None:
    with lifecycle.locked(cluster):
        _start_and_wait(cluster, args.component)


def _restart(cluster: Layout, args: argparse.Namespace) -> None:
    with lifecycle.locked(cluster):
        processes.stop(cluster, args.component)
        _start_and_wait(cluster, args.component)


def _start_and_wait(cluster: Layout, name: str) -> None:
    if name == "kube-router":
        preflight.check_network_rules()
    lifecycle.start(cluster, name)
    if name in ("etcd", "kube-apiserver", "forwarder"):
        wait_for("the API server's readiness", lambda: lifecycle.api_is_ready(cluster), 60,
                 f"see {cluster.logs}/{name}.log")


def _kill(cluster: Layout, args: argparse.Namespace) -> None:
    with lifecycle.locked(cluster):
        processes.stop(cluster, args.component, signal.SIGKILL)


def _pause(cluster: Layout, args: argparse.Namespace) -> None:
    processes.send(cluster, args.component, signal.SIGSTOP)


def _resume(cluster: Layout, args: argparse.Namespace) -> None:
    processes.send(cluster, args.component, signal.SIGCONT)


def _logs(cluster: Layout, args: argparse.Namespace) -> None:
    sys.stdout.write((cluster.logs / f"{args.component}.log").read_text(errors="replace"))


def _argv(args: argparse.Namespace, example: str) -> list[str]:
    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        raise Failure(f"say what to run, as in: e2e/cluster/ctl {example}")
    return argv


def _nsenter(cluster: Layout, args: argparse.Namespace) -> None:
    argv = _argv(args, "nsenter -- curl http://10.96.0.1")
    network.enter(cluster.netns)
    try:
        os.execvp(argv[0], argv)
    except OSError as why:
        raise Failure(f"cannot run {argv[0]}: {why.strerror}") from why


def _load_image(cluster: Layout, args: argparse.Namespace) -> None:
    for archive in args.archive:
        images.load(cluster, archive)
        say(f"loaded {archive}")


def _ctr(cluster: Layout, args: argparse.Namespace) -> int:
    argv = _argv(args, "ctr -- images list")
    return subprocess.run(["ctr", "--address", str(cluster.nodes[0].containerd_socket), "--namespace", "k8s.io", *argv]).returncode


def _tag_image(cluster: Layout, args: argparse.Namespace) -> None:
    for node in cluster.nodes:
        images.ctr(node, "images", "tag", "--force", args.image, args.new_name)


def _running_container(cluster: Layout, namespace: str, pod: str, name: str | None) -> str:
    """The id of a pod's container; of its first one if no name is given."""
    command = lifecycle.kubectl(cluster, lifecycle.programs(), "get", "pod", "-n", namespace, pod, "-o", "json")
    for status in json.loads(run(*command))["status"].get("containerStatuses", []):
        if name in (None, status["name"]) and "running" in status["state"]:
            return status["containerID"].removeprefix("containerd://")
    raise Failure(f"the pod {namespace}/{pod} has no running container{f' {name}' if name else ''}")


def _task(cluster: Layout, container: str) -> tuple[Node, str]:
    """The node that runs a container, and the process id of its first process."""
    for node in cluster.nodes:
        for line in images.ctr(node, "task", "list").splitlines():
            task, pid, *_ = line.split()
            if task == container:
                return node, pid
    raise Failure(f"the container {container} has just ended")


def _pod_pid(cluster: Layout, args: argparse.Namespace) -> None:
    container = _running_container(cluster, args.namespace, args.pod, args.container)
    print(_task(cluster, container)[1])


def _kill_container(cluster: Layout, args: argparse.Namespace) -> None:
    container = _running_container(cluster, args.namespace, args.pod, args.container)
    images.ctr(_task(cluster, container)[0], "task", "kill", "--signal", args.signal.removeprefix("SIG"), container)
