"""Does with the Python SDK's client what it is told, a command a line on stdin, and tells what it sees, a line of
JSON each on stdout. Which of its two lines of releases it is, the installed package says."""

import asyncio
import json
import sys
from datetime import timedelta
from importlib.metadata import version

MODERN = not version("mcp").startswith("1.")


def say(line):
    print(json.dumps(line), flush=True)


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def told(error):
    inner = getattr(error, "error", error)
    return {
        "code": getattr(inner, "code", None),
        "message": f"{type(error).__name__}: {error}",
        "data": getattr(inner, "data", None),
    }


class Old:
    """1.x: a session over a transport that is opened by hand."""

    async def run(self, url, token, ready, over):
        from mcp import ClientSession
        from mcp.client.streamable_http import streamable_http_client
        import httpx

        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as http,
            streamable_http_client(url, http_client=http) as (read, write, _),
            ClientSession(read, write, message_handler=self.heard) as session,
        ):
            self.session = session
            answer = await session.initialize()
            ready.set_result({"revision": answer.protocolVersion, "server": plain(answer.serverInfo)})
            await over.wait()

    async def heard(self, message):
        from mcp.types import ServerNotification, ToolListChangedNotification

        if isinstance(message, ServerNotification) and isinstance(message.root, ToolListChangedNotification):
            # Not here: the handler must return before the session reads on.
            self.relisting = asyncio.ensure_future(changed(self))

    async def tools(self):
        return [plain(tool) for tool in (await self.session.list_tools()).tools]

    async def call(self, name, arguments, meta, timeout, progress):
        self.last = self.session._request_id
        answer = await self.session.call_tool(
            name, arguments, timedelta(milliseconds=timeout), progress_callback=progress, meta=meta
        )
        return plain(answer)

    async def cancel(self, task):
        """This line of releases leaves the notification to its user."""
        from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

        params = CancelledNotificationParams(requestId=self.last, reason="the test does not want it any more")
        await self.session.send_notification(ClientNotification(CancelledNotification(params=params)))
        task.cancel()


class New:
    """2.x: one client for all."""

    async def run(self, url, token, ready, over):
        from mcp.client.client import Client
        from mcp.client.streamable_http import streamable_http_client
        import httpx2

        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode="auto") as client:
                self.client = client
                ready.set_result({"revision": client.protocol_version, "server": None})
                async with client.listen(tools_list_changed=True) as events:
                    listening = asyncio.ensure_future(self.listen(events))
                    await over.wait()
                    listening.cancel()

    async def listen(self, events):
        async for _ in events:
            await changed(self)

    async def tools(self):
        return [plain(tool) for tool in (await self.client.list_tools(cache_mode="refresh")).tools]

    async def call(self, name, arguments, meta, timeout, progress):
        answer = await self.client.call_tool(
            name, arguments, timeout / 1000, progress_callback=progress, meta=meta
        )
        return plain(answer)

    async def cancel(self, task):
        task.cancel()


async def changed(client):
    say({"event": "changed", "error": None, "tools": [tool["name"] for tool in await client.tools()]})


async def main():
    client = New() if MODERN else Old()
    running, over = {}, asyncio.Event()

    async def call(command):
        number = command["call"]

        async def progress(done, total, message):
            say({"event": "progress", "call": number, "progress": done, "total": total, "message": message})

        arguments, timeout = command.get("arguments", {}), command.get("timeout", 60000)
        return await client.call(command["name"], arguments, command.get("meta"), timeout, progress)

    async def to_its_end(command):
        try:
            say({"event": "ended", "call": command["call"], "result": await call(command)})
        except asyncio.CancelledError:
            say({"event": "ended", "call": command["call"], "failed": {"message": "cancelled"}})
        except Exception as error:
            say({"event": "ended", "call": command["call"], "failed": told(error)})

    async def do(command):
        match command["command"]:
            case "connect":
                ready = asyncio.get_running_loop().create_future()

                async def connection():
                    try:
                        await client.run(command["url"], command["token"], ready, over)
                    except BaseException as error:
                        if not ready.done():
                            ready.set_exception(error)
                        say({"event": "error", "message": repr(error)})

                running["connection"] = asyncio.ensure_future(connection())
                return await ready
            case "tools":
                return await client.tools()
            case "call":
                return await call(command)
            case "start":
                running[command["call"]] = asyncio.ensure_future(to_its_end(command))
            case "cancel":
                await client.cancel(running[command["call"]])
            case "close":
                over.set()

    async def one(command):
        try:
            say({"id": command["id"], "answer": await do(command)})
        except BaseException as error:
            say({"id": command["id"], "failed": told(error)})

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    kept = set()
    while line := await reader.readline():
        kept.add(asyncio.ensure_future(one(json.loads(line))))


asyncio.run(main())
