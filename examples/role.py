# A role in Python with all that a role should have; docs/roles-python.md goes through it. It brings the items of a message
# to a service, one by one:   {"items": [...]}   →   POST $DELIVER_TO for each.        pip install supabase
#   DELIVER_TO=http://… COGO_URL=https://… COGO_KEY=… python role.py
import asyncio, contextlib, os, random, signal, socket, sys
import httpx  # comes with supabase
from supabase import acreate_client


def need(name):
    return os.getenv(name) or sys.exit(f"{name}: must be set")


TARGET = need("DELIVER_TO")
REPEATABLE = os.getenv("DELIVER_REPEATABLE") == "1"  # the service knows an Idempotency-Key when it sees it again
TOPIC, WORKER = os.getenv("COGO_TOPIC", "deliver/default"), os.getenv("COGO_WORKER", "py-1")
LEASE_MS, PLACES, DRAIN_S = int(os.getenv("COGO_LEASE_MS", "30000")), 4, 20
ROLE = TOPIC.split("/")[0]


class Failure(Exception):
    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


# ---- the work ----

async def handle(message, progress):
    items = message["payload"].get("items")
    if not isinstance(items, list):
        raise Failure("invalid_params", "payload.items: must be an array")
    before = message["error"] or {}
    vanished = message["attempts"] > 1 and (before.get("class") == "lease_expired" or before.get("may_have_run"))
    if vanished and not REPEATABLE:
        raise Failure("ambiguous", "an earlier attempt may have delivered some of it")
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, connect=5)) as http:
        for n, item in enumerate(items):
            try:
                await deliver(http, f"{message['id']}/{n}", item)  # the same key at each attempt
            except Failure as failure:
                if n > 0 and not REPEATABLE:  # whoever tries again would deliver the first ones twice
                    raise Failure("ambiguous", f"{n} of {len(items)} are delivered; then: {failure}") from failure
                raise
            progress(n + 1, len(items))
    return {"delivered": len(items)}


async def deliver(http, key, item):
    try:
        answer = await http.post(TARGET, json=item, headers={"idempotency-key": key})
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Failure("connect", f"{TARGET} is not reached: {error}") from error
    except httpx.TransportError as error:
        if not REPEATABLE:
            raise Failure("ambiguous", f"no answer to {key}: it may have been delivered") from error
        kind = "timeout" if isinstance(error, httpx.TimeoutException) else "closed"
        raise Failure(kind, f"no answer to {key}: {error}") from error
    if answer.status_code >= 500:
        raise Failure("tool_error", f"{TARGET} answers {answer.status_code}")
    if not answer.is_success:
        raise Failure("invalid_params", f"{TARGET} refuses {key}: {answer.status_code}")


# ---- from the claim to the settle ----

RETRIED = ("connect", "timeout", "closed")  # the others end in the dead-letter queue at once
cut = asyncio.Event()  # the drain is over


async def attempt(call, message):
    claim = {"id": message["id"], "claim_no": message["claim_no"]}
    told = asyncio.Queue()
    progress = lambda done, of: told.put_nowait({"progress": done, "total": of})
    work = asyncio.create_task(handle(message, progress))
    helpers = [asyncio.create_task(extend(call, claim, work)), asyncio.create_task(tell(call, message, told))]
    ending = asyncio.create_task(cut.wait())
    await asyncio.wait([work, ending], return_when=asyncio.FIRST_COMPLETED)
    stopped = not work.done() and work.cancel()
    await asyncio.wait([work])
    ending.cancel(), helpers[0].cancel()
    await told.join()  # what was reported goes before the result
    helpers[1].cancel()
    # Cut off in the middle: an attempt that may be made again is given back, one that may not has an unknown end.
    if stopped and REPEATABLE:
        return claim | {"op": "release", "reason": "shutdown"}
    if work.cancelled():  # by the drain, or because the claim is lost, and then whatever we say is refused
        return fail(claim, message, "ambiguous", "cut off in the middle")
    if error := work.exception():
        return fail(claim, message, getattr(error, "kind", "internal"), str(error))
    return claim | {"op": "complete", "result": work.result()}


def fail(claim, message, kind, text):
    error = {"class": kind, "message": text, "may_have_run": kind in ("timeout", "closed", "ambiguous")}
    settle = claim | {"op": "fail", "error": error}
    if kind in RETRIED:  # full jitter
        settle["retry_in_ms"] = round(random.random() * min(60000, 500 * 2 ** message["attempts"]))
    return settle


async def extend(call, claim, work):
    while True:
        await asyncio.sleep(LEASE_MS / 3000)
        with contextlib.suppress(Exception):
            rows = (await call("bus_extend", {"claims": [claim], "lease_ms": LEASE_MS})).data
            if rows[0]["code"] == "CG409":
                work.cancel()  # somebody else's now


async def tell(call, message, told):
    event = {"event_type": message["intent"].replace(".", "_") + "_progress", "message_id": message["id"],
             "attempt": message["attempts"], "worker_id": WORKER}
    while True:
        report = await told.get()
        with contextlib.suppress(Exception):
            await call("bus_append_event", {"events": [event | {"payload": {"progress": report}}]})
        told.task_done()


# ---- the loop ----

async def main():
    bus = await acreate_client(need("COGO_URL"), need("COGO_KEY"))
    call = lambda fn, args: bus.rpc(fn, args).execute()
    wake, stopping, running, settles = asyncio.Event(), asyncio.Event(), set(), []  # wake: "look", and no more than that

    def stop():
        stopping.set(), wake.set()
        asyncio.get_running_loop().call_later(DRAIN_S, cut.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    async def be_seen():
        worker = {"id": WORKER, "role": ROLE, "topics": [TOPIC], "host": socket.gethostname(), "info": {"capacity": PLACES}}
        while True:
            with contextlib.suppress(Exception):
                await call("bus_worker_seen", {"worker": worker})
                await call("bus_reap", {"max": 100})  # a hub reaps by itself; on Supabase alone nobody else would
            await asyncio.sleep(10)

    def finished(task):
        running.discard(task)
        settles.append(task.result())
        wake.set()
        if (due_ms := task.result().get("retry_in_ms")) is not None:  # nobody tells of what becomes due
            asyncio.get_running_loop().call_later(due_ms / 1000 + 0.5, wake.set)

    seeing = asyncio.create_task(be_seen())
    channel = bus.channel("wake").on_system(lambda _: wake.set())
    channel.on_postgres_changes("*", schema="public", table="agent_messages", filter=f"role=eq.{ROLE}", callback=lambda _: wake.set())
    joining = asyncio.create_task(channel.subscribe(lambda *_: wake.set()))
    while not stopping.is_set() or running or settles:
        wake.clear()  # before looking, so that none is missed
        sent, settles[:] = list(settles), []
        try:
            free = 0 if stopping.is_set() else PLACES - len(running)
            step = {"settles": sent, "worker": WORKER, "topics": [TOPIC], "max": free, "lease_ms": LEASE_MS}
            for row in (await call("bus_step", step)).data:
                if row["message"]:
                    task = asyncio.create_task(attempt(call, row["message"]))
                    running.add(task)
                    task.add_done_callback(finished)
            if not settles:  # old clients stay away when their socket was closed: then look more often
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(wake.wait(), random.uniform(15, 30) if channel.is_joined else 3)
        except Exception as error:  # The same settles again: one that was done already is answered as repeated.
            print(error, file=sys.stderr)
            if getattr(error, "code", None) not in ("CG400", "CG413"):  # refused, it never helps; its lease runs out
                settles[:0] = sent
            await asyncio.sleep(random.uniform(1, 3))
    seeing.cancel(), joining.cancel()
    with contextlib.suppress(Exception):
        await call("bus_worker_gone", {"worker": WORKER, "reason": "shutdown"})
    os._exit(0)  # old clients keep their socket's tasks for ever


asyncio.run(main())
