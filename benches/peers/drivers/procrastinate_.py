"""procrastinate: jobs are deferred in batches, and fetched one at a time by as many workers as --batch says."""

import asyncio
import logging

import procrastinate
import psycopg

import job as shared

logging.disable(logging.WARNING)


async def main():
    job = shared.arguments()
    pool = {"min_size": job.connections, "max_size": job.connections}
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=job.url, **pool))
    tally = shared.Tally(job)

    @app.task(name="count")
    async def count(message):
        tally.handled(message)

    async with app.open_async():
        match job.work:
            case "setup":
                await app.schema_manager.apply_schema_async()
                shared.done(job, 0, 0.0)
            case "enqueue":
                await shared.batches(
                    job, lambda messages: count.batch_defer_async(*({"message": message} for message in messages))
                )
            case "single":
                await shared.singles(job, lambda _, message: count.defer_async(message=message))
            case "send":
                await shared.paced(job, lambda message: count.defer_async(message=message))
            case "drain" | "listen":
                await drain(job, app, tally)
            case other:
                raise SystemExit(f'procrastinate does not do "{other}"')


async def drain(job, app, tally):
    looking = await psycopg.AsyncConnection.connect(job.url, autocommit=True)

    async def any_left():
        cursor = await looking.execute(
            "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
        )
        return (await cursor.fetchone())[0]

    def run():
        return app.run_worker_async(concurrency=job.batch, install_signal_handlers=False, wait=True)

    worker = await shared.work(job, tally, run, any_left, pause=1.0)
    worker.cancel()
    await asyncio.wait({worker})
    await looking.close()


asyncio.run(main())
