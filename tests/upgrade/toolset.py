"""An MCP server over stdio for the tests of upgrades, with nothing but Python.

`works` answers; `stumbles` ends the process at the first call with a `key`, and answers later ones; `refuses` always says
that it failed; `waits` answers when the file `go` is there. TOOLSET_DIR is where it remembers.
"""

import json
import os
import sys
import time
from pathlib import Path

DIR = Path(os.environ["TOOLSET_DIR"])
ANY = {"type": "object", "properties": {"key": {"type": "string"}}}
TOOLS = ["works", "stumbles", "refuses", "waits"]


def call(name: str, key: str) -> dict:
    text = {"content": [{"type": "text", "text": f"{name} {key}"}]}
    if name == "stumbles":
        try:
            (DIR / f"stumbled-{key}").touch(exist_ok=False)
            sys.exit(1)
        except FileExistsError:
            pass
    if name == "waits":
        while not (DIR / "go").exists():
            time.sleep(0.02)
    return {**text, "isError": name == "refuses"}


def answer(method: str, params: dict) -> dict:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "upgrade", "version": "1"},
        }
    if method == "tools/list":
        safe = {"readOnlyHint": True, "idempotentHint": True}
        return {"tools": [{"name": name, "inputSchema": ANY, "annotations": safe} for name in TOOLS]}
    if method == "tools/call":
        return call(params["name"], params.get("arguments", {}).get("key", ""))
    if method == "ping":
        return {}
    raise LookupError(method)


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    try:
        reply = {"result": answer(request["method"], request.get("params") or {})}
    except LookupError as error:
        reply = {"error": {"code": -32601, "message": f"no method {error}"}}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}), flush=True)
