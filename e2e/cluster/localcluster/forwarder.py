"""Listens on the host's loopback and dials an address inside the cluster's network namespace.

    python3 -m localcluster.forwarder PORT NETNS ADDRESS:PORT

One process: the listening socket is made before it enters the namespace and stays the host's; the
sockets that it dials with are made after, and so are the namespace's.
"""

import asyncio
import socket
import sys
from pathlib import Path

from .network import enter


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction until its end, and passes the end on."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()  # a broken connection ends both directions


async def serve(listener: socket.socket, host: str, port: int) -> None:
    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
        for each in (writer, there_writer):
            each.close()

    server = await asyncio.start_server(on_client, sock=listener)
    async with server:
        await server.serve_forever()


def main() -> None:
    port, netns, target = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    enter(netns)
    host, _, target_port = target.rpartition(":")
    asyncio.run(serve(listener, host, int(target_port)))


if __name__ == "__main__":
    main()
