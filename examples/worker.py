# A worker on supabase-py, 2.15 or newer:   pip install supabase
#   COGO_URL=https://… COGO_KEY=… COGO_TOPIC=echo/default python worker.py
import asyncio, contextlib, os, random
from supabase import acreate_client

TOPIC, WORKER = os.getenv("COGO_TOPIC", "echo/default"), os.getenv("COGO_WORKER", "py-1")
LEASE_MS = int(os.getenv("COGO_LEASE_MS", "30000"))

async def handle(message):  # yours
    await asyncio.sleep(message["payload"].get("ms", 0) / 1000)
    return {"echo": message["payload"]}

async def attempt(call, message):
    claim = {"id": message["id"], "claim_no": message["claim_no"]}
    work = asyncio.create_task(handle(message))
    while not (await asyncio.wait([work], timeout=LEASE_MS / 3000))[0]:  # for as long as the work takes
        with contextlib.suppress(Exception): await call("bus_extend", {"claims": [claim], "lease_ms": LEASE_MS})
    if error := work.exception():
        return claim | {"op": "fail", "error": {"message": str(error)}, "retry_in_ms": 5000}
    return claim | {"op": "complete", "result": work.result()}

async def main():
    bus, wake, settles = await acreate_client(os.environ["COGO_URL"], os.environ["COGO_KEY"]), asyncio.Event(), []
    call = lambda fn, args: bus.rpc(fn, args).execute()
    channel = bus.channel("wake").on_system(lambda _: wake.set())  # "look", and no more than that
    channel.on_postgres_changes("*", schema="public", table="agent_messages", filter=f"role=eq.{TOPIC.split('/')[0]}", callback=lambda _: wake.set())
    joining = asyncio.create_task(channel.subscribe(lambda *_: wake.set()))
    while True:
        wake.clear()  # before looking, so that none is missed
        try:  # Should the answer be lost, the same settles are sent again: they are answered as repeated.
            step = {"settles": settles, "worker": WORKER, "topics": [TOPIC], "max": 8, "lease_ms": LEASE_MS}
            rows = (await call("bus_step", step)).data
            settles = await asyncio.gather(*(attempt(call, row["message"]) for row in rows if row["message"]))
            if not settles:  # old clients stay away when their socket was closed: then look more often
                await asyncio.wait_for(wake.wait(), random.uniform(15, 30) if channel.is_joined else 3)
        except TimeoutError: pass
        except Exception as error: print(error); await asyncio.sleep(random.uniform(1, 3))

asyncio.run(main())
