"""Load for an OpenAI-compatible server on this machine, and what came back: output tokens/s, time to first token,
time between tokens, request time, and the server's resident memory.

    bench/serving.py --url http://127.0.0.1:8000 --model deepseek-tiny --pid $(pidof deepseek-worker)

bench/peers.py drives several servers with it, with prompts of a given number of tokens.

A plain asyncio client on raw sockets: on two cores a heavier client would measure itself. All requests of a run have
prompts of their own, greedy sampling and `ignore_eos`, so that each server makes the same number of tokens.
"""

import argparse
import asyncio
import json
import random
import time
from urllib.parse import urlparse

PROMPT = "What is {a}+{b}? Then count from one to ten, name a capital and sort 7, 3, 9."


def percentile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def chat(model: str, number: int, tokens: int) -> tuple[str, dict]:
    """Path and body of a request."""
    content = PROMPT.format(a=number % 997, b=number // 997 + 3)
    return "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": tokens}


def completion(model: str, number: int, prompt: int, vocabulary: int, tokens: int) -> tuple[str, dict]:
    """The same with a prompt of so many tokens, drawn from all but the first hundred."""
    draw = random.Random(number)
    ids = [draw.randrange(100, vocabulary) for _ in range(prompt)]
    return "/v1/completions", {"model": model, "prompt": ids, "max_tokens": tokens}


async def one_request(host: str, port: int, path: str, body: dict) -> dict:
    text = json.dumps(body | {"stream": True, "temperature": 0, "ignore_eos": True,
                              "stream_options": {"include_usage": True}}).encode()
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode() + text)
    status = int((await reader.readline()).split()[1])
    times, made = [], 0
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event.get("usage"):
            made = event["usage"]["completion_tokens"]
        for choice in event.get("choices", []):
            delta = choice.get("delta", choice)
            if delta.get("content") or delta.get("reasoning_content") or delta.get("text"):
                times.append(time.perf_counter())
    writer.close()
    end = time.perf_counter()
    if status != 200 or not times or made != body["max_tokens"]:
        raise RuntimeError(f"HTTP {status}, {len(times)} pieces, {made} tokens")
    return {"ttft": times[0] - begin, "gaps": [b - a for a, b in zip(times, times[1:])],
            "total": end - begin, "tokens": made}


async def load(host: str, port: int, concurrency: int, requests: list[tuple[str, dict]]) -> tuple[list[dict], float]:
    """All requests by so many clients: what each saw, and the seconds of all together."""
    left = iter(requests)
    results: list[dict] = []

    async def client() -> None:
        for path, body in left:
            results.append(await one_request(host, port, path, body))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return results, time.perf_counter() - begin


def summary(results: list[dict], wall: float) -> dict:
    gaps = [gap for r in results for gap in r["gaps"]]
    return {
        "requests": len(results),
        "output_tokens_per_s": round(sum(r["tokens"] for r in results) / wall, 1),
        "ttft_ms_p50": round(1e3 * percentile([r["ttft"] for r in results], 0.5), 2),
        "ttft_ms_p99": round(1e3 * percentile([r["ttft"] for r in results], 0.99), 2),
        "itl_ms_p50": round(1e3 * percentile(gaps, 0.5), 2),
        "itl_ms_p99": round(1e3 * percentile(gaps, 0.99), 2),
        "request_ms_p50": round(1e3 * percentile([r["total"] for r in results], 0.5), 1),
    }


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pid", type=int, help="of the server, for its memory")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests-per-client", type=int, default=24)
    arguments = parser.parse_args()
    url = urlparse(arguments.url)

    def requests(first: int, count: int) -> list[tuple[str, dict]]:
        return [chat(arguments.model, number, arguments.tokens) for number in range(first, first + count)]

    asyncio.run(load(url.hostname, url.port, 4, requests(900_000, 16)))  # warm-up
    first = 0
    for concurrency in arguments.concurrency:
        count = concurrency * arguments.requests_per_client
        result = {"concurrency": concurrency} | summary(
            *asyncio.run(load(url.hostname, url.port, concurrency, requests(first, count))))
        first += count
        if arguments.pid:
            result["rss_mib"] = round(resident_mib(arguments.pid), 1)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
