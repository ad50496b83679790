"""OpenAI's SDK alone, calling a server as a worker does: each line ``CLIENTS CALLS`` is answered with rate and median.

The median is in milliseconds. The url of the server is the first argument.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import openai
import uvloop


async def measure(client: openai.AsyncOpenAI, clients: int, calls: int) -> tuple[float, float]:
    """Let so many clients stream so many answers each; return answers a second and the median milliseconds of one."""
    took: list[float] = []

    async def talk() -> None:
        for _ in range(calls):
            began = time.perf_counter()
            stream = await client.chat.completions.create(
                model="m",
                stream=True,
                messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
            )
            async for _chunk in stream:
                pass
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(talk() for _ in range(clients)))
    return clients * calls / (time.perf_counter() - began), statistics.median(took) * 1e3


async def main() -> None:
    """Measure as asked, line by line."""
    client = openai.AsyncOpenAI(base_url=sys.argv[1], api_key="k", http_client=openai.DefaultAioHttpClient())
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(*await measure(client, *map(int, line.split())), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
