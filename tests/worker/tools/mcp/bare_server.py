"""An MCP server in the standard library alone, which is up at once and misbehaves in every way asked for.

Run as ``python bare_server.py [--port N] [--more FILE] [--deaf] [--late SECONDS] [--noise] [--starts FILE]``; it speaks
over stdio, or with a port over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = {
    "who": "Tell the process, its group and its session.",
    "environment": "Tell the environment.",
    "descriptors": "Tell the open descriptors.",
    "die": "Die at once.",
    "leave": "End without a word.",
    "hang": "Never answer this call, but go on to answer others.",
    "freeze": "Answer nothing any more.",
    "endless": "Write a line without end.",
}


#: the calls that are never answered, and those that nobody waits for any more, as clients tell it
HANGING: list[object] = []
CANCELLED: list[object] = []


def answer(method: str, params: dict[str, Any], more: Path | None) -> dict[str, Any] | None:
    """Return the result of a request, None for a method that is not known."""
    match method:
        case "initialize":
            version, info = params["protocolVersion"], {"name": "bare", "version": "1"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            names = TOOLS | ({"more": "Be more."} if more and more.exists() else {})
            schema = {"type": "object"}
            return {"tools": [{"name": n, "description": text, "inputSchema": schema} for n, text in names.items()]}
        case "tools/call":
            return {"content": [{"type": "text", "text": call(params["name"])}]}
        case _:
            return None


def call(name: str) -> str:
    match name:
        case "who":
            mine = {"pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0)}
            return json.dumps(mine | {"hanging": len(HANGING), "cancelled": len(CANCELLED)})
        case "environment":
            return json.dumps(dict(os.environ))
        case "descriptors":
            with os.scandir("/proc/self/fd") as listing:
                return json.dumps(sorted(int(entry.name) for entry in listing)[:-1])
        case "die":
            os.write(2, b"about to die of " + os.environ.get("MINE", "nothing").encode() + b"\n")
            os._exit(3)
        case "leave":
            sys.exit(0)
        case "freeze":
            time.sleep(600)
        case "endless":
            while True:
                os.write(1, b"x" * 65536)
        case _:
            pass
    return name


def reply(line: str | bytes, more: Path | None) -> bytes:
    """Return the answer to a message, empty where there is none."""
    asked = json.loads(line)
    if asked.get("method") == "notifications/cancelled":
        CANCELLED.append(asked)
    if "id" not in asked:
        return b""
    if asked.get("params", {}).get("name") == "hang":
        HANGING.append(asked)
        return b""
    result = answer(asked["method"], asked.get("params", {}), more)
    unknown = {"error": {"code": -32601, "message": "Method not found"}}
    said = {"jsonrpc": "2.0", "id": asked["id"]} | (unknown if result is None else {"result": result})
    return json.dumps(said).encode() + b"\n"


def serve(more: Path | None) -> None:
    """Answer line by line until the input ends."""
    for line in sys.stdin:
        sys.stdout.buffer.write(reply(line, more))
        sys.stdout.buffer.flush()


def serve_http(port: int, more: Path | None) -> None:
    """Answer posts with JSON, as a server without streams does."""
    import http.server

    class Door(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = reply(self.rfile.read(int(self.headers["content-length"])), more)
            self.send_response(200 if body else 202)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Door).serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--more", type=Path, help="a file: while it exists there is one more tool")
    parser.add_argument("--deaf", action="store_true", help="hear neither the end of the input nor SIGTERM")
    parser.add_argument("--late", type=float, default=0.0)
    parser.add_argument("--noise", action="store_true", help="write what is no message first")
    parser.add_argument("--starts", type=Path, help="a file that gets a line with the process id at each start")
    given = parser.parse_args()
    if given.starts:
        with given.starts.open("a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(given.late)
    if given.noise:
        os.write(1, b"Hello, I am a server!\n\n{not json\n")
    if given.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "987656"], stdin=subprocess.DEVNULL)
    serve(given.more) if given.port is None else serve_http(given.port, given.more)
    time.sleep(600 if given.deaf else 0)


if __name__ == "__main__":
    main()
