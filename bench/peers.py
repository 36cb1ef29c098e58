#!/usr/bin/env python3
"""The worker beside vLLM and llama.cpp as servers: the same weights, cores, context and client, through the OpenAI API.
docs/benchmarks.md ("Beside vLLM and llama.cpp") says how to get the two.

    bench/same_weights.py FOLDER --layers 8 --types BF16 Q8_0 Q4_0
    bench/peers.py FOLDER [--vllm PYTHON] [--llama LLAMA_SERVER] [--weights BF16] [--rounds 2]

All servers are up, and take turns (A B C A B C) load by load, so that what else the machine does hits them alike; those
whose turn it is not are stopped, since threads that wait by spinning would share the cores. Each line of JSON is a load on
a server in a round; the table at the end puts all rounds' requests together.
"""
import argparse
import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import serving

CONTEXT = 2048  # of a sequence, prompt and answer
# Prompt tokens, clients, requests of each client.
LOADS = [(64, 1, 4), (64, 4, 4), (64, 16, 3), (64, 32, 3), (512, 1, 3), (512, 4, 2), (512, 16, 2), (1500, 1, 2), (1500, 4, 2)]


def preloads(python: str) -> str:
    """What vLLM is advised to run with: OpenMP of Intel's and tcmalloc, where they are."""
    found = sorted(pathlib.Path(python).parent.parent.glob("lib/libiomp5.so"))
    found += sorted(pathlib.Path("/usr/lib/x86_64-linux-gnu").glob("libtcmalloc_minimal.so.4"))
    return ":".join(map(str, found))


def commands(arguments: argparse.Namespace) -> dict[str, tuple[list[str], dict[str, str], str]]:
    """By name: a server's command without its port, its environment, and the path that answers 200 once it serves."""
    folder, sequences, threads = arguments.folder, max(clients for _, clients, _ in LOADS), str(arguments.threads)
    of_type = {"BF16": "auto", "Q8_0": "int8", "Q4_0": "int4"}[arguments.weights]
    servers = {"worker": ([
        arguments.worker, "--model", folder, "--served-name", "m", "--host", "127.0.0.1", "--internal-port", "0",
        "--deterministic", "false", "--kv-cache-dtype", "bf16", "--weight-quantization", of_type, "--threads", threads,
        "--max-model-len", str(CONTEXT), "--max-num-seqs", str(sequences), "--kv-cache-tokens", str(sequences * CONTEXT)],
        {}, "/health/ready")}
    if arguments.vllm and arguments.weights == "BF16":
        servers["vLLM"] = ([
            arguments.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "m",
            "--host", "127.0.0.1", "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", str(sequences)],
            {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": arguments.vllm_bind, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
             "LD_PRELOAD": preloads(arguments.vllm)}, "/health")
    if arguments.llama:
        servers["llama.cpp"] = ([
            arguments.llama, "-m", f"{folder}/{arguments.weights}.gguf", "--alias", "m", "--host", "127.0.0.1", "-t", threads,
            "-tb", threads, "-np", str(sequences), "-c", str(sequences * CONTEXT), *arguments.llama_options.split()],
            {}, "/health")
    return servers


@contextlib.contextmanager
def running(name: str, command: list[str], environment: dict[str, str], health: str, patience: float):
    """A server that answers: its process and port. Its output is shown if it does not begin."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*map(str, command), "--port", str(port)], env=os.environ | environment, stdout=log,
                                   stderr=log, start_new_session=True)
        try:
            until = time.monotonic() + patience
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    sys.exit(f"{name} does not serve:\n{log.read()[-4000:]}")
                time.sleep(0.2)
            yield process, port
        finally:
            tell_all(process.pid, signal.SIGTERM)
            tell_all(process.pid, signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            tell_all(process.pid, signal.SIGKILL)
            process.wait()


def processes(session: int) -> list[pathlib.Path]:
    """All of a server's, as folders of /proc; its children may have groups of their own."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(folder.name)) == session:
                found.append(folder)
    return found


def tell_all(session: int, what: signal.Signals) -> None:
    for folder in processes(session):
        with contextlib.suppress(OSError):
            os.kill(int(folder.name), what)


@contextlib.contextmanager
def its_turn(session: int):
    """A server goes on, and is stopped afterwards."""
    tell_all(session, signal.SIGCONT)
    try:
        yield
    finally:
        tell_all(session, signal.SIGSTOP)


def of_all_processes(session: int, read) -> float:
    total = 0.0
    for folder in processes(session):
        with contextlib.suppress(OSError, StopIteration):
            total += read(folder)
    return total


def memory_mib(session: int) -> float:
    """Of all processes of a server: each page once, files that it maps included."""
    return of_all_processes(session, lambda folder: next(
        int(line.split()[1]) for line in (folder / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))) / 1024


def core_seconds(session: int) -> float:
    """That they have been on a core so far, which other programs on the machine do not lengthen; spinning counts."""
    ticks = of_all_processes(session, lambda folder: sum(map(int, (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13])))
    return ticks / os.sysconf("SC_CLK_TCK")


def table(names: list[str], loads, pooled: dict) -> str:
    lines = ["| prompt, clients | " + " | ".join(f"{name}: tokens/s; first token; between tokens" for name in names) +
             " | tokens/s, ratio |", "|---" * (len(names) + 2) + "|"]
    for prompt, clients, _ in loads:
        of = [serving.summary(*pooled[name, prompt, clients]) for name in names]
        cells = [f"{o['output_tokens_per_s']:,}; {o['ttft_ms_p50']:,.0f} / {o['ttft_ms_p99']:,.0f}; "
                 f"{o['itl_ms_p50']:,.1f} / {o['itl_ms_p99']:,.1f}" for o in of]
        ratios = [f"{of[0]['output_tokens_per_s'] / o['output_tokens_per_s']:.2f}" for o in of[1:]]
        lines.append(f"| {prompt:,}, {clients} | " + " | ".join(cells) + f" | {', '.join(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="of bench/same_weights.py")
    parser.add_argument("--worker", default="build/release/deepseek-worker")
    parser.add_argument("--vllm", help="a Python that has it")
    parser.add_argument("--vllm-bind", default=",".join(map(str, sorted(os.sched_getaffinity(0)))),
                        help="its VLLM_CPU_OMP_THREADS_BIND; with auto it leaves one core to its server")
    parser.add_argument("--llama", help="its llama-server")
    parser.add_argument("--llama-options", default="", help="more of llama-server's")
    parser.add_argument("--weights", default="BF16", choices=["BF16", "Q8_0", "Q4_0"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, nargs="+", help="only loads of these")
    parser.add_argument("--clients", type=int, nargs="+", help="only loads of so many")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--patience", type=float, default=600, help="seconds that a server may take to begin")
    arguments = parser.parse_args()
    loads = [load for load in LOADS if load[0] in (arguments.prompts or [load[0]]) and
             load[1] in (arguments.clients or [load[1]])]
    servers = commands(arguments)
    vocabulary = json.loads((arguments.folder / "config.json").read_text())["vocab_size"]

    def requests(prompt: int, count: int, tokens: int, first: int) -> list[tuple[str, dict]]:
        return [serving.completion("m", number, prompt, vocabulary, tokens) for number in range(first, first + count)]

    pooled: dict[tuple[str, int, int], tuple[list[dict], float]] = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # and so end what has been started
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(running(name, *server, arguments.patience)) for name, server in servers.items()}

        def drive(name: str, clients: int, asked: list[tuple[str, dict]]) -> tuple[list[dict], float]:
            process, port = started[name]
            with its_turn(process.pid):
                return asyncio.run(serving.load("127.0.0.1", port, clients, asked))

        for name in started:  # not measured: what a server compiles at its first prompts
            for prompt in {load[0] for load in loads}:
                drive(name, 2, requests(prompt, 2, 8, 10**9 + prompt))
        for number, (turn, (prompt, clients, each)) in enumerate(itertools.product(range(arguments.rounds), loads)):
            for name, (process, _) in started.items():
                asked = requests(prompt, clients * each, arguments.tokens, 10_000 * number)
                begun = core_seconds(process.pid)
                results, wall = drive(name, clients, asked)
                core_ms = 1e3 * (core_seconds(process.pid) - begun) / len(asked)
                before, walls = pooled.get((name, prompt, clients), ([], 0.0))
                pooled[name, prompt, clients] = (before + results, walls + wall)
                print(json.dumps({"server": name, "weights": arguments.weights, "round": turn, "prompt": prompt,
                                  "clients": clients, **serving.summary(results, wall), "core_ms_per_request": round(core_ms),
                                  "memory_mib": round(memory_mib(process.pid)), "load": os.getloadavg()[0]}), flush=True)
    print(table(list(servers), loads, pooled))


if __name__ == "__main__":
    main()
