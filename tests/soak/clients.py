"""What clients do to a server, good and bad, each as a coroutine that returns the HTTP status it saw (0: it went away
before there was one). Raw sockets: the point is what no library would send."""

import asyncio
import gzip
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MODEL = "deepseek-tiny"
REFUSED = {429, 503}  # full or draining: right answers to any request


@dataclass
class Server:
    host: str
    port: int


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(server.host, server.port, limit=1 << 20)


def leave(writer: asyncio.StreamWriter, rng: random.Random) -> None:
    """Closes, half of the time with a reset instead of a goodbye."""
    if rng.random() < 0.5:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


def head(path: str, length: int, more: str = "") -> bytes:
    return (f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
            f"Connection: close\r\n{more}\r\n").encode()


def chat(rng: random.Random, stream: bool, tokens: int, content: str | None = None) -> bytes:
    question = content if content is not None else f"What is {rng.randrange(999)}+{rng.randrange(999)}?"
    return json.dumps({"model": MODEL, "stream": stream, "max_tokens": tokens, "ignore_eos": rng.random() < 0.5,
                       "seed": rng.randrange(1 << 30), "temperature": rng.choice([0, 0.7]),
                       "messages": [{"role": "user", "content": question}]}).encode()


async def status_of(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    if not line.startswith(b"HTTP/1.1 "):
        raise ConnectionError(f"no status line but {line[:40]!r}")
    return int(line.split()[1])


async def send(server: Server, data: bytes) -> tuple[int, bytes]:
    """The whole exchange: status and the rest of the answer."""
    reader, writer = await connect(server)
    try:
        try:
            writer.write(data)
            await writer.drain()
        except ConnectionError:
            pass  # refused before all was sent; the answer may be there all the same
        status = await status_of(reader)
        return status, await reader.read()
    finally:
        writer.close()


# --- good ones ---

async def ask(server: Server, rng: random.Random) -> int:
    body = chat(rng, False, rng.randrange(1, 60))
    status, answer = await send(server, head("/v1/chat/completions", len(body)) + body)
    if status == 200 and b'"finish_reason"' not in answer:
        raise ConnectionError("an answer without an end")
    return status


async def stream(server: Server, rng: random.Random) -> int:
    body = chat(rng, True, rng.randrange(1, 60))
    status, answer = await send(server, head("/v1/chat/completions", len(body)) + body)
    if status == 200 and b"data: [DONE]" not in answer:
        raise ConnectionError("a stream without its end")
    return status


async def read_slowly(server: Server, rng: random.Random) -> int:
    reader, writer = await connect(server)
    body = chat(rng, True, rng.randrange(20, 200))
    writer.write(head("/v1/chat/completions", len(body)) + body)
    status = await status_of(reader)
    for _ in range(rng.randrange(40)):
        if not await reader.read(rng.randrange(1, 200)):
            break
        await asyncio.sleep(0.05)
    leave(writer, rng)
    return status


# --- those who go away ---

async def vanish_while_sending(server: Server, rng: random.Random) -> int:
    _, writer = await connect(server)
    body = chat(rng, True, 50)
    data = head("/v1/chat/completions", len(body)) + body
    writer.write(data[: rng.randrange(len(data))])
    await asyncio.sleep(rng.random() * 0.5)
    leave(writer, rng)
    return 0


async def vanish_while_waiting(server: Server, rng: random.Random) -> int:
    _, writer = await connect(server)
    body = chat(rng, rng.random() < 0.5, 300, "count " * rng.randrange(1, 300))
    writer.write(head("/v1/chat/completions", len(body)) + body)
    await asyncio.sleep(rng.random() * 0.3)
    leave(writer, rng)
    return 0


async def vanish_while_streaming(server: Server, rng: random.Random) -> int:
    reader, writer = await connect(server)
    body = chat(rng, True, 300)
    writer.write(head("/v1/chat/completions", len(body)) + body)
    status = await status_of(reader)
    for _ in range(rng.randrange(1, 20)):
        if not await reader.readline():
            break
    leave(writer, rng)
    return status


async def half_open(server: Server, rng: random.Random) -> int:
    """Says nothing, or half a request, and stays."""
    _, writer = await connect(server)
    writer.write(b"POST /v1/chat/comple"[: rng.choice([0, 5, 20])])
    await asyncio.sleep(1 + rng.random() * 3)
    leave(writer, rng)
    return 0


async def half_close(server: Server, rng: random.Random) -> int:
    """Ends its sending half while the answer is being made: for this server that is going away."""
    reader, writer = await connect(server)
    body = chat(rng, True, 200)
    writer.write(head("/v1/chat/completions", len(body)) + body)
    writer.write_eof()
    await reader.read()
    writer.close()
    return 0


# --- bad input ---

async def huge_prompt(server: Server, rng: random.Random) -> int:
    body = chat(rng, False, 5, "all work and no play " * 500_000)  # 10 MB
    return (await send(server, head("/v1/chat/completions", len(body)) + body))[0]


async def huge_body(server: Server, rng: random.Random) -> int:
    return (await send(server, head("/v1/chat/completions", 1 << 30) + b"[" * 1000))[0]


async def deep_json(server: Server, rng: random.Random) -> int:
    body = rng.choice([b"[", b'{"a":']) * 100_000
    return (await send(server, head("/v1/chat/completions", len(body)) + body))[0]


async def broken_utf8(server: Server, rng: random.Random) -> int:
    body = chat(rng, False, 5, "MARK").replace(b"MARK", rng.choice([b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"]))
    return (await send(server, head("/v1/chat/completions", len(body)) + body))[0]


async def noise(server: Server, rng: random.Random) -> int:
    return (await send(server, rng.randbytes(rng.randrange(8, 4000)) + b"\r\n\r\n"))[0]


async def broken_json(server: Server, rng: random.Random) -> int:
    body = bytearray(chat(rng, False, 5))
    body[rng.randrange(len(body))] = rng.randrange(256)
    return (await send(server, head("/v1/chat/completions", len(body)) + bytes(body)))[0]


async def many_headers(server: Server, rng: random.Random) -> int:
    more = "".join(f"X-{i}: {'a' * 100}\r\n" for i in range(2000))
    return (await send(server, head("/v1/chat/completions", 2, more) + b"{}"))[0]


async def long_header(server: Server, rng: random.Random) -> int:
    return (await send(server, head("/v1/chat/completions", 2, f"X-Long: {'a' * 1_000_000}\r\n") + b"{}"))[0]


async def zip_bomb(server: Server, rng: random.Random) -> int:
    """A compressed body: never unpacked, so no harm whatever its size would be."""
    body = gzip.compress(b" " * 10_000_000)
    return (await send(server, head("/v1/chat/completions", len(body), "Content-Encoding: gzip\r\n") + body))[0]


@dataclass
class Behaviour:
    act: Callable[[Server, random.Random], Awaitable[int]]
    weight: float
    right: set[int]  # statuses that are right


BEHAVIOURS = [
    Behaviour(ask, 20, {200} | REFUSED),
    Behaviour(stream, 20, {200} | REFUSED),
    Behaviour(read_slowly, 10, {200} | REFUSED),
    Behaviour(vanish_while_sending, 8, {0}),
    Behaviour(vanish_while_waiting, 10, {0}),
    Behaviour(vanish_while_streaming, 10, {200} | REFUSED),
    Behaviour(half_open, 6, {0}),
    Behaviour(half_close, 6, {0}),
    Behaviour(huge_prompt, 0.2, {400} | REFUSED),
    Behaviour(huge_body, 1, {413}),
    Behaviour(deep_json, 2, {400}),
    Behaviour(broken_utf8, 2, {400}),
    Behaviour(noise, 2, {400}),
    Behaviour(broken_json, 2, {200, 400, 404} | REFUSED),
    Behaviour(many_headers, 1, {431}),
    Behaviour(long_header, 1, {431}),
    Behaviour(zip_bomb, 1, {400, 415}),
]
