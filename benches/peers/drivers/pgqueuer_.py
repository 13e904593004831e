"""pgqueuer: batches of 100 through one connection of asyncpg, with uvloop, as its own benchmark has it."""

import json

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries

import job as shared

ENTRYPOINT = "count"


def encoded(message):
    return json.dumps(message).encode()


async def drain(job, connection):
    tally = shared.Tally(job)
    queuer = PgQueuer.from_asyncpg_connection(connection)

    @queuer.entrypoint(ENTRYPOINT)
    async def count(handed):
        tally.handled(json.loads(handed.payload))

    looking = await asyncpg.connect(job.url)

    async def any_left():
        return await looking.fetchval("select exists (select from pgqueuer)")

    worker = await shared.work(job, tally, lambda: queuer.run(batch_size=job.batch), any_left, pause=1.0)
    queuer.shutdown.set()
    await worker
    await looking.close()


async def main():
    job = shared.arguments()
    connection = await asyncpg.connect(job.url)
    queries = Queries(AsyncpgDriver(connection))

    async def send_all(messages):
        count = len(messages)
        await queries.enqueue([ENTRYPOINT] * count, [encoded(message) for message in messages], [0] * count)

    async def send(message):
        await queries.enqueue(ENTRYPOINT, encoded(message))

    match job.work:
        case "setup":
            await queries.install()
            shared.done(job, 0, 0.0)
        case "enqueue":
            await shared.batches(job, send_all)
        case "single":
            connections = [await asyncpg.connect(job.url) for _ in range(job.connections)]
            each = [Queries(AsyncpgDriver(one)) for one in connections]
            await shared.singles(job, lambda who, message: each[who].enqueue(ENTRYPOINT, encoded(message)))
            for one in connections:
                await one.close()
        case "send":
            await shared.paced(job, send)
        case "drain" | "listen":
            await drain(job, connection)
        case other:
            raise SystemExit(f'pgqueuer does not do "{other}"')
    await connection.close()


uvloop.run(main())
