"""An MCP server on stdio, of the standard library alone: one tool, which doubles a number."""

import json
import sys

TOOL = {
    "name": "twice",
    "description": "Doubles a number.",
    "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}


def answer(request: dict) -> dict:
    method = request["method"]
    if method == "initialize":
        result = {
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "twice", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": [TOOL]}
    elif method == "tools/call":
        n = request["params"]["arguments"]["n"]
        result = {"content": [{"type": "text", "text": f"twice {n} is {2 * n}"}]}
    elif method == "ping":
        result = {}
    else:
        return {"error": {"code": -32601, "message": f"no method {method}"}}
    return {"result": result}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer(request)}), flush=True)
