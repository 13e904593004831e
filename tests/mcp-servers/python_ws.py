"""The Python SDK's MCP server over its own WebSocket transport: python_ws.py PORT."""

import sys
import warnings

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.websocket import websocket_server
from mcp.types import ToolAnnotations
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

warnings.simplefilter("ignore", DeprecationWarning)
mcp = FastMCP("python-websocket")


@mcp.tool(annotations=ToolAnnotations(readOnlyHint=True))
def echo(message: str) -> str:
    """Gives the message back."""
    return message


@mcp.tool()
def divide(a: float, b: float) -> float:
    """Divides; fails for b = 0."""
    return a / b


@mcp.tool()
async def count(to: int, context: Context) -> int:
    """Counts, reporting progress."""
    for number in range(1, to + 1):
        await context.report_progress(number, to)
        await anyio.sleep(0.01)
    return to


async def endpoint(websocket: WebSocket) -> None:
    server = mcp._mcp_server
    async with websocket_server(websocket.scope, websocket.receive, websocket.send) as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    app = Starlette(routes=[WebSocketRoute("/", endpoint)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
