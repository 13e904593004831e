"""Does with supabase-py what the tests say: a command a line on stdin, an answer or an event a line on
stdout, all JSON. Runs with the Python of the environment in which the client is installed."""

import asyncio
import importlib.metadata
import json
import sys

import supabase

client = None
sync_client = None
channels = {}
NAMES = {"maybeSingle": "maybe_single", "in": "in_", "is": "is_", "not": "not_"}


def say(**line):
    sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stdout.flush()


def plain(value):
    """What a callback was given, of whichever class, as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    return value


async def version():
    return importlib.metadata.version("supabase")


async def connect(url, key):
    global client, sync_client
    client = await supabase.acreate_client(url, key)
    sync_client = supabase.create_client(url, key)


async def subscribe(channel, config=None, changes=(), presence=False):
    config = {
        "broadcast": {"ack": False, "self": False},
        "presence": {"key": "", "enabled": presence},
        "private": False,
    } | (config or {})
    config["presence"]["enabled"] = presence
    made = channels[channel] = client.channel(channel, {"config": config})

    def on(event, **more):
        say(event=event, channel=channel, **more)

    def changed(asked, data):
        kind = getattr(data["type"], "value", data["type"])
        on("change", asked=asked, type=kind, record=data.get("record"), table=data["table"])

    for change in changes:
        rest = {k: v for k, v in change.items() if k != "event"}
        made.on_postgres_changes(
            change["event"],
            callback=lambda p, asked=change: changed(asked, plain(p)["data"]),
            **rest,
        )
    # The old one has no wildcard.
    for name in ("text", "binary"):
        made.on_broadcast(name, lambda p, n=name: on("broadcast", name=n, payload=plain(p).get("payload")))
    if presence:
        made.on_presence_sync(lambda: on("sync", state=plain(made.presence_state())))
        made.on_presence_join(lambda key, *_: on("joined", key=key))
        made.on_presence_leave(lambda key, *_: on("left", key=key))
    made.on_system(lambda p: on("system", payload=plain(p)))
    first = asyncio.get_running_loop().create_future()

    def status(state, error=None):
        on("status", status=state.value, error=error and {"message": str(error)})
        if not first.done():
            first.set_result(state.value)

    await made.subscribe(status)
    return await first


async def send(channel, name, payload):
    await channels[channel].send_broadcast(name, payload)


async def http_send(channel, name, payload):
    await client.channel(channel).http_send(name, payload)


async def track(channel, state):
    await channels[channel].track(state)


async def untrack(channel):
    await channels[channel].untrack()


async def presence(channel):
    return plain(channels[channel].presence_state())


async def set_auth(token):
    await client.realtime.set_auth(token)


async def leave(channel):
    await channels[channel].unsubscribe()


def chain(query, steps):
    for step, *args in steps:
        options = {}
        if args and isinstance(args[-1], dict) and step in ("order", "limit"):
            options = args.pop()
            if "ascending" in options:
                options["desc"] = not options.pop("ascending")
            options = {{"nullsFirst": "nullsfirst"}.get(k, k): v for k, v in options.items()}
        if step == "not":
            column, operator, value = args
            query = getattr(query.not_, NAMES.get(operator, operator))(column, value)
        else:
            query = getattr(query, NAMES.get(step, step))(*args, **options)
    return query


def answer(result):
    if result is None:  # maybe_single of the old one, where there is none
        return {"data": None, "error": None, "count": None}
    return {"data": result.data, "error": None, "count": result.count}


def refused(error):
    found = {k: getattr(error, k, None) for k in ("code", "message", "hint", "details")}
    return {"data": None, "error": found, "count": None}


async def request(query):
    try:
        result = query.execute()
        return answer(await result if asyncio.iscoroutine(result) else result)
    except supabase.PostgrestAPIError as error:
        return refused(error)


async def rpc(fn, args=None, get=False, steps=(), sync=False):
    which = sync_client if sync else client
    options = {"get": True} if get else {}  # the old one has no such option
    return await request(chain(which.rpc(fn, args or {}, **options), steps))


async def select(table, columns="*", options=None, steps=(), sync=False):
    which = sync_client if sync else client
    return await request(chain(which.table(table).select(columns, **(options or {})), steps))


async def insert(table, row):
    return await request(client.table(table).insert(row))


COMMANDS = {
    f.__name__: f
    for f in (version, connect, subscribe, send, http_send, track, untrack, presence, set_auth, leave)
} | {"rpc": rpc, "select": select, "insert": insert}


async def run(line):
    command = json.loads(line)
    number, name = command.pop("id"), command.pop("command")
    try:
        say(id=number, answer=await COMMANDS[name](**command))
    except Exception as error:  # whatever a client raises is an answer here
        say(id=number, failed={"name": type(error).__name__, "message": str(error)})


async def main():
    reader = asyncio.StreamReader(limit=1 << 24)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    tasks = set()
    while line := await reader.readline():
        # Not one after the other: a subscription that never comes must not keep others from being made.
        task = asyncio.create_task(run(line))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
