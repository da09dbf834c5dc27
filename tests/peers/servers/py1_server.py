"""A server on the official Python SDK of the legacy line, over the transport that is asked for.

Usage: target/peers/py1/bin/python tests/peers/servers/py1_server.py websocket|sse|streamable-http
Prints its URL as the first line.
"""

import socket
import sys
import warnings

import uvicorn
from mcp.server.fastmcp import FastMCP

warnings.filterwarnings("ignore", category=DeprecationWarning)

server = FastMCP("py1")


@server.tool()
def echo(text: str) -> str:
    """Answers with the text."""
    return text


async def websocket(scope, receive, send):
    from mcp.server.websocket import websocket_server

    if scope["type"] != "websocket":
        return
    async with websocket_server(scope, receive, send) as (read, write):
        inner = server._mcp_server
        await inner.run(read, write, inner.create_initialization_options())


SERVED = {
    "websocket": ("ws", "/ws", lambda: websocket),
    "sse": ("http", "/sse", server.sse_app),
    "streamable-http": ("http", "/mcp", server.streamable_http_app),
}

scheme, path, app = SERVED[sys.argv[1]]
listener = socket.create_server(("127.0.0.1", 0))
print(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
uvicorn.Server(uvicorn.Config(app(), log_level="error")).run([listener])
