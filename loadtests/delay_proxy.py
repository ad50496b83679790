"""A TCP proxy that delays what passes, each way by half of a round trip: ``python -m loadtests.delay_proxy PORT MS``.

Kernels without netem have nothing else. It prints its own port on a line.
"""

from __future__ import annotations

import asyncio
import sys

PIECE_BYTES = 65_536


class DelayProxy:
    """Passes connections on to a port of this machine, ``each_way_s`` later in either direction."""

    def __init__(self, port: int, each_way_s: float) -> None:
        self._port = port
        self._each_way_s = each_way_s

    async def serve(self) -> asyncio.Server:
        """Listen on a free port of the loopback address."""
        return await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(pieces, writer))
        loop = asyncio.get_running_loop()
        try:
            while piece := await reader.read(PIECE_BYTES):
                pieces.put_nowait((loop.time() + self._each_way_s, piece))
        except ConnectionError:
            pass
        pieces.put_nowait((loop.time() + self._each_way_s, b""))
        await writing

    async def _write(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        """Write each piece when its time has come, in the order in which they came."""
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                writer.close()
                return
            writer.write(piece)


async def main(port: int, round_trip_ms: float) -> None:
    """Serve until the process is ended."""
    server = await DelayProxy(port, round_trip_ms / 2000).serve()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
