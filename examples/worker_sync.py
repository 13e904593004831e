# A worker on supabase-py without asyncio and Realtime, for handlers that block:   pip install supabase
#   COGO_URL=https://… COGO_KEY=… COGO_TOPIC=echo/default python worker_sync.py
import contextlib, os, random, threading, time
from supabase import create_client

TOPIC, WORKER = os.getenv("COGO_TOPIC", "echo/default"), os.getenv("COGO_WORKER", "py-sync-1")
LEASE_MS = int(os.getenv("COGO_LEASE_MS", "30000"))
connect = lambda: create_client(os.environ["COGO_URL"], os.environ["COGO_KEY"])
call = lambda bus, fn, args: bus.rpc(fn, args).execute().data

def handle(message):  # yours
    time.sleep(message["payload"].get("ms", 0) / 1000)
    return {"echo": message["payload"]}

def extend(claim, done):
    bus = connect()  # a connection of its own, as the other thread's is not for two
    while not done.wait(LEASE_MS / 3000):
        with contextlib.suppress(Exception): call(bus, "bus_extend", {"claims": [claim], "lease_ms": LEASE_MS})

def attempt(message):
    claim, done = {"id": message["id"], "claim_no": message["claim_no"]}, threading.Event()
    threading.Thread(target=extend, args=(claim, done), daemon=True).start()
    try:
        return claim | {"op": "complete", "result": handle(message)}
    except Exception as error:
        return claim | {"op": "fail", "error": {"message": str(error)}, "retry_in_ms": 5000}
    finally:
        done.set()

bus, settles = connect(), []
while True:
    try:  # Should the answer be lost, the same settles are sent again: they are answered as repeated.
        step = {"settles": settles, "worker": WORKER, "topics": [TOPIC], "max": 1, "lease_ms": LEASE_MS}
        settles = [attempt(row["message"]) for row in call(bus, "bus_step", step) if row["message"]]
        if not settles:
            time.sleep(random.uniform(1, 3))
    except Exception as error:
        print(error)
        time.sleep(random.uniform(1, 3))
