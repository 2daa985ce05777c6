"""Many sandboxes from one event loop.

    MITOS_BASE_URL=http://127.0.0.1:8080 python examples/02_async.py
"""

import asyncio

from mitos import aio


async def count_primes(sandbox: aio.AsyncDirectSandbox, below: int) -> str | None:
    execution = await sandbox.run_code(
        f"sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, {below}))"
    )
    return execution.text


async def main() -> None:
    async with await aio.create("python") as sandbox:
        await sandbox.exec("echo prepared > /workspace/state")
        children = await sandbox.fork(3)
        try:
            limits = (100, 1_000, 10_000)
            counts = await asyncio.gather(*map(count_primes, children, limits))
            for limit, count in zip(limits, counts, strict=True):
                print(f"primes below {limit}: {count}")
        finally:
            await asyncio.gather(*(child.terminate() for child in children))


asyncio.run(main())
