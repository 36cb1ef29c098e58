"""Answers `GET /internal/status` for the leaders of all pods that kwok only pretends to run.

    python3 -m scale.leaders PORT

The pods' addresses are local in the cluster's network, so one socket receives what is sent to any of them. A line is
what a worker that is ready and idle says, every 2 s as a worker does; between SIGUSR1 and SIGUSR2 its numbers change,
and a line comes every second.
"""

import asyncio
import json
import random
import signal
import sys
from datetime import UTC, datetime

_SLOTS = 20  # streams speak in turns, so that the lines come evenly
_IDLE_SECONDS = 2.0
_BUSY_SECONDS = 1.0
_GIB = 1 << 30


def status_line(pod: str, busy: bool) -> bytes:
    """The fields that a worker's line has (worker/server/worker_status.cc)."""
    waiting = random.randrange(1, 100) if busy else 0
    running = random.randrange(1, 64) if busy else 0
    line = {
        "phase": "Ready", "reason": "Ready", "message": "the group is ready", "model": "bench", "namespace": "bench",
        "revision": "00000000", "group": "bench-00000000-0", "pod": pod, "epoch": 1,
        "loadedBytes": _GIB, "totalBytes": _GIB, "queueDepth": waiting, "running": running,
        "kvUsed": 64 * running, "kvTotal": 65536, "tokensPerSecond": 10.5 * running, "maxModelLen": 8192,
        "lastError": "",
        "ranks": [{"rank": rank, "phase": "Ready", "loadedBytes": _GIB // 2, "totalBytes": _GIB // 2, "error": ""}
                  for rank in range(2)],
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


class Leaders:
    """All streams, and the beat at which they speak."""

    def __init__(self) -> None:
        self.busy = False
        self._slots: list[set[Stream]] = [set() for _ in range(_SLOTS)]
        self._next = 0

    def add(self, stream: "Stream") -> None:
        min(self._slots, key=len).add(stream)
        stream.say(self.busy)

    def remove(self, stream: "Stream") -> None:
        for slot in self._slots:
            slot.discard(stream)

    async def speak(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for stream in self._slots[self._next]:
                stream.say(self.busy)
            self._next = (self._next + 1) % _SLOTS
            due = max(due + (_BUSY_SECONDS if self.busy else _IDLE_SECONDS) / _SLOTS, loop.time())
            await asyncio.sleep(due - loop.time())


class Stream(asyncio.Protocol):
    def __init__(self, leaders: Leaders):
        self._leaders = leaders
        self._head = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._pod = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        if self._head.startswith(b"GET /internal/status ") and b"authorization: bearer " in self._head.lower():
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                                  b"Transfer-Encoding: chunked\r\n\r\n")
            self._leaders.add(self)
        else:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()
        self._head = b""

    def say(self, busy: bool) -> None:
        line = status_line(self._pod, busy)
        self._transport.write(b"%x\r\n%s\r\n" % (len(line), line))

    def connection_lost(self, error: Exception | None) -> None:
        self._leaders.remove(self)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    leaders = Leaders()
    loop.add_signal_handler(signal.SIGUSR1, setattr, leaders, "busy", True)
    loop.add_signal_handler(signal.SIGUSR2, setattr, leaders, "busy", False)
    server = await loop.create_server(lambda: Stream(leaders), "0.0.0.0", port, backlog=4096)
    async with server:
        await leaders.speak()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
