"""An MCP server over stdio, or over HTTP with a port, that lists and answers what real servers do and should not.

Over HTTP it knows a session for as long as the file ``--sessions`` holds the same text as when it was opened.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import sys
from pathlib import Path
from typing import Any

#: a whole PNG of one pixel
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS: list[Any] = [
    {"name": "plain", "description": "Be plain.", "inputSchema": {"type": "object"}},
    {"name": "a.b", "inputSchema": {"type": "object"}},
    {"name": "a/b", "inputSchema": {"type": "object"}},
    {"name": "a_b", "inputSchema": {"type": "object"}},
    {"name": "long_" * 15 + "one", "inputSchema": {"type": "object"}},
    {"name": "long_" * 15 + "two", "inputSchema": {"type": "object"}},
    {"name": "no_schema"},
    {"name": "null_schema", "inputSchema": None, "annotations": "none", "icons": 5, "_meta": []},
    {"name": "text_schema", "inputSchema": "object"},
    {"name": "array_schema", "inputSchema": {"type": "array"}},
    {
        "name": "union",
        "inputSchema": {
            "type": "object",
            "oneOf": [{"properties": {"$filter": {"$ref": "#/$defs/f"}}, "required": ["$filter"]}, {"required": []}],
            "$defs": {"f": {"type": "string"}},
        },
    },
    {"name": "bad_output", "inputSchema": {"type": "object"}, "outputSchema": "none"},
    {"name": "mismatch", "inputSchema": {"type": "object"}, "outputSchema": OUTPUT},
    {"name": "unstructured", "inputSchema": {"type": "object"}, "outputSchema": OUTPUT},
    {"name": "fits", "inputSchema": {"type": "object"}, "outputSchema": OUTPUT},
    {"name": "odd_blocks", "inputSchema": {"type": "object"}},
    {"name": "picture", "inputSchema": {"type": "object"}},
    {"name": "progress", "inputSchema": {"type": "object"}},
    {"name": "remember", "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}}},
    {"name": "descriptors", "inputSchema": {"type": "object"}},
    {"description": "no name"},
    "no tool",
    None,
    {"name": "asks", "inputSchema": {"type": "object"}},
    {"name": "endless_progress", "inputSchema": {"type": "object"}},
    {"name": "link", "inputSchema": {"type": "object"}},
]
RESULTS: dict[str, Any] = {
    "mismatch": {"content": [{"type": "text", "text": "the text"}], "structuredContent": {"n": "x"}},
    "unstructured": {"content": [{"type": "text", "text": "the text"}]},
    "picture": {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]},
    "link": {"content": [{"type": "resource_link", "uri": "x://y", "name": "y"}]},
    "fits": {"content": [], "structuredContent": {"n": 1}},
    "odd_blocks": {"content": [{"type": "hologram", "x": 1}, {"text": "typeless"}, "bare"], "isError": None},
}


class Server:
    """Answers requests; what it is told to remember is its own."""

    def __init__(self) -> None:
        self.word = ""

    def answer(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result of a request, None for a notification."""
        params = asked.get("params") or {}
        match asked["method"]:
            case "initialize":
                info = {"name": "odd", "version": "1"}
                capabilities = {"tools": {"listChanged": True}}
                return {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": info}
            case "tools/list":
                return {"tools": TOOLS, "nextCursor": None}
            case "tools/call":
                return self.call(params)
            case _:
                return None

    def call(self, params: dict[str, Any]) -> dict[str, Any]:
        name, given = params["name"], params.get("arguments") or {}
        text = json.dumps(given)
        match name:
            case "progress":
                token = params["_meta"]["progressToken"]
                for step, message in ((1, None), (2, "nearly")):
                    told = {"progressToken": token, "progress": step, "total": 2} | (
                        {"message": message} if message else {}
                    )
                    say({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
            case "endless_progress":
                told = {"progressToken": params["_meta"]["progressToken"], "progress": 0.5}
                say({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
            case "asks":
                elicited = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}
                say({"jsonrpc": "2.0", "id": "e", "method": "elicitation/create", "params": elicited})
                sampled = {"messages": [], "maxTokens": 5}
                say({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": sampled})
                text = json.dumps({heard["id"]: heard["error"] for heard in (json.loads(input()), json.loads(input()))})
            case "remember":
                self.word, text = given.get("word") or self.word, f"{os.getpid()} {given.get('word') or self.word}"
            case "descriptors":
                text = json.dumps(links())
            case _:
                pass
        return RESULTS.get(name) or {"content": [{"type": "text", "text": text}]}


def links() -> dict[str, str]:
    """Return the open descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except OSError:
            continue  # the folder that was read
    return found


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def serve_http(port: int, sessions: Path) -> None:
    server = Server()

    class Door(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known = sessions.read_text()
            if asked["method"] != "initialize" and self.headers.get("mcp-session-id") != known:
                self._send(404, b"Session not found", "text/plain")
            elif "id" not in asked or (result := server.answer(asked)) is None:
                self._send(202, b"", "application/json")
            else:
                said = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
                self._send(200, json.dumps(said).encode(), "application/json", known)

        def _send(self, status: int, body: bytes, kind: str, session: str = "") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            if session:
                self.send_header("mcp-session-id", session)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._send(405, b"", "text/plain")

        def do_DELETE(self) -> None:
            self._send(405, b"", "text/plain")

        def log_message(self, *args: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Door).serve_forever()


def serve_stormy() -> None:
    """Speak before it is asked, answer twice and under texts for ids, list one page for ever, and tell of changes."""
    server, lists = Server(), 0
    changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    sys.stdout.write("listening on stdin\n")
    say(changed)
    say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "loud", "data": None}})
    say({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {"messages": []}})
    say({"jsonrpc": "2.0", "id": 99, "result": {}})
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked or "method" not in asked:
            continue
        result = server.answer(asked)
        if asked["method"] == "tools/list":
            lists += 1
            blob = {"type": "resource", "resource": {"uri": "x://y", "blob": PNG, "mimeType": "image/png"}}
            RESULTS.update(lists={"content": [{"type": "text", "text": str(lists)}]}, blob={"content": [blob]})
            RESULTS["huge"] = {"content": [{"type": "text", "text": "x" * 3_000_000}]}
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("lists", "blob", "huge", "fits")]
            result = {"tools": tools, "nextCursor": "again"}
        known = {"result": result} if result is not None else {"error": {"code": -32601, "message": "no"}}
        for _ in range(2):
            sys.stdout.write(f"answering {asked['method']}\n")
            say({"jsonrpc": "2.0", "id": str(asked["id"])} | known)
        for _ in range(20):
            say(changed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--sessions", type=Path)
    parser.add_argument("--stormy", action="store_true")
    given = parser.parse_args()
    if given.port:
        serve_http(given.port, given.sessions)
    if given.stormy:
        serve_stormy()
        return
    server = Server()
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked and (result := server.answer(asked)) is not None:
            say({"jsonrpc": "2.0", "id": asked["id"], "result": result})
        elif "id" in asked:
            say({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "Method not found"}})


if __name__ == "__main__":
    main()
