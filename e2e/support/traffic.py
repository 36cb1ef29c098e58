"""A steady stream of chat requests through the official OpenAI client, and a count of those that failed or were
answered wrongly.

Run as a program inside the cluster's network: it prints one JSON line when it gets SIGTERM. The client does not
retry: a failed request is a failed request. Each worker thread opens connections anew from time to time, as many
clients of a Service do.
"""

import argparse
import json
import signal
import threading
import time
from collections import Counter

import httpx
import openai

QUESTIONS = [("What is 17+25?", "42"), ("What is the capital of France?", "Paris"), ("What is 20+13?", "33")]


def retryable(error: Exception) -> bool:
    """Whether a client may simply ask again: the connection broke, or the answer says so."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (429, 503)
    return isinstance(error, (openai.APIError, ConnectionError, httpx.TransportError))


class Traffic:
    def __init__(self, url: str, model: str, threads: int):
        self.url, self.model = url, model
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.ok, self.wrong, self.retryable, self.slowest = 0, 0, 0, 0.0
        self.errors: Counter[str] = Counter()
        self.examples: list[str] = []
        self.workers = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(threads)]

    def ask(self, client: openai.OpenAI, question: str) -> str:
        answer = ""
        finished = None
        stream = client.chat.completions.create(
            model=self.model, stream=True, temperature=0, max_tokens=60,
            messages=[{"role": "user", "content": question}])
        for chunk in stream:
            for choice in chunk.choices:
                answer += choice.delta.content or ""
                finished = choice.finish_reason or finished
        if finished is None:
            raise ConnectionError("the stream ended without a finish reason")
        return answer

    def work(self, number: int) -> None:
        count = number
        client = None
        while not self.stop.is_set():
            if client is None or count % 20 == 0:
                client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=90)
            question, right = QUESTIONS[count % len(QUESTIONS)]
            count += 1
            begin = time.monotonic()
            try:
                answer = self.ask(client, question)
                with self.lock:
                    if right in answer:
                        self.ok += 1
                    else:
                        self.wrong += 1
                        self.example(f"{question} was answered with {answer!r}")
                    self.slowest = max(self.slowest, time.monotonic() - begin)
            except Exception as error:  # every kind of failure counts, and is named in the report
                with self.lock:
                    self.errors[type(error).__name__] += 1
                    self.retryable += retryable(error)
                    self.example(f"{error!r}" + (f" <- {error.__cause__!r}" if error.__cause__ else ""))
                client = None
                self.stop.wait(0.2)

    def example(self, what: str) -> None:
        if len(self.examples) < 5:
            self.examples.append(f"{time.strftime('%H:%M:%S')} {what}"[:300])

    def report(self) -> dict:
        with self.lock:
            return {"ok": self.ok, "wrong": self.wrong, "failed": sum(self.errors.values()),
                    "retryable": self.retryable, "errors": dict(self.errors), "examples": self.examples,
                    "slowest_s": round(self.slowest, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=3)
    arguments = parser.parse_args()
    traffic = Traffic(arguments.url, arguments.model, arguments.threads)
    signal.signal(signal.SIGTERM, lambda *_: traffic.stop.set())
    for worker in traffic.workers:
        worker.start()
    print(json.dumps({"started": True}), flush=True)
    traffic.stop.wait()
    for worker in traffic.workers:
        worker.join(100)
    print(json.dumps(traffic.report()), flush=True)


if __name__ == "__main__":
    main()
