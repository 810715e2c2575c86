"""python -m vmproxy.lab.relay NAMESPACE ADDRESS PORT PORT_FILE

A relay from a loopback port of this machine into a namespace of the lab, so that programs outside
reach its API server. It writes the port that it listens on to PORT_FILE.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from vmproxy.util import netns

_CHUNK = 1 << 16


async def serve(namespace: str, target: tuple[str, int], port_file: Path) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            channel = await asyncio.to_thread(netns.connect, namespace, target, timeout=5.0)
        except OSError:
            writer.close()
            return
        inner_reader, inner_writer = await asyncio.open_connection(sock=channel)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    try:
        server = await asyncio.start_server(relay, "127.0.0.1", _wanted_port(port_file))
    except OSError:  # the port is in use now
        server = await asyncio.start_server(relay, "127.0.0.1", 0)
    part = port_file.with_suffix(".part")
    part.write_text(str(server.sockets[0].getsockname()[1]))
    part.replace(port_file)
    await server.serve_forever()


def _wanted_port(port_file: Path) -> int:
    """The previous port, so that the kubeconfig stays valid; 0 (any) the first time."""
    return int(port_file.read_text()) if port_file.exists() else 0


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], (sys.argv[2], int(sys.argv[3])), Path(sys.argv[4])))
