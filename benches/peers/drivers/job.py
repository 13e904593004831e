"""What the drivers for Python share: the arguments, the clock and the line that src/drive.rs describes."""

import argparse
import asyncio
import json
import sys
import time

TEXT = "the quick brown fox jumps over the lazy dog and then goes home to sleep until the sun is up again, ok"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--variant")
    for name in ("messages", "batch", "connections", "rate"):
        parser.add_argument(f"--{name}", type=int, default=1)
    return parser.parse_args()


def payload(n):
    return {"n": n, "text": TEXT}


def say(line):
    print(json.dumps(line), flush=True)


def ready():
    say({"ready": True})


def done(job, count, seconds, written=None, latencies=()):
    written = count if written is None else written
    say({"work": job.work, "count": count, "written": written, "seconds": seconds, "latencies_ms": list(latencies)})


async def batches(job, send):
    """Batches, one after the other; one goes before the clock starts."""
    await send([payload(n) for n in range(job.batch)])
    end = job.batch + job.messages
    start = time.monotonic()
    for first in range(job.batch, end, job.batch):
        await send([payload(n) for n in range(first, min(end, first + job.batch))])
    done(job, job.messages, time.monotonic() - start, written=end)


async def singles(job, send):
    """Producers at once, one message at a time; one message of each goes before the clock starts."""

    async def producer(who, numbers):
        for n in numbers:
            await send(who, payload(n))

    async def produce(messages):
        numbers = iter(range(messages))
        await asyncio.gather(*(producer(who, numbers) for who in range(job.connections)))

    await produce(job.connections)
    start = time.monotonic()
    await produce(job.messages)
    done(job, job.messages, time.monotonic() - start, written=job.messages + job.connections)


async def paced(job, send):
    """Messages that say when they were sent, by the clock that all processes share."""
    start = time.monotonic()
    for n in range(job.messages):
        await asyncio.sleep(max(0.0, start + n / job.rate - time.monotonic()))
        await send({"n": n, "at": time.monotonic_ns()})
    done(job, job.messages, time.monotonic() - start)


class Tally:
    """Counts what a handler was given."""

    def __init__(self, job):
        self.count = 0
        self.latencies = []
        self.all = asyncio.Event()
        self._messages = job.messages

    def handled(self, message):
        if "at" in message:
            self.latencies.append((time.monotonic_ns() - message["at"]) / 1e6)
        self.count += 1
        if self.count == self._messages:
            self.all.set()


async def work(job, tally, run, any_left, pause=0.0):
    """Runs a worker until the handlers and the last ack in the database are seen, and cancels it."""
    start = time.monotonic()
    worker = asyncio.create_task(run())
    if job.work == "listen":
        # None of the two says when it listens.
        await asyncio.sleep(pause)
        ready()
    await first_of(worker, tally.all.wait())
    while await any_left():
        await asyncio.sleep(0.002)
    done(job, tally.count, time.monotonic() - start, latencies=tally.latencies)
    return worker


async def first_of(worker, awaited):
    """Waits, but not for a worker that has failed."""
    waiting = asyncio.ensure_future(awaited)
    await asyncio.wait({worker, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        worker.result()
        sys.exit("the worker stopped by itself")
