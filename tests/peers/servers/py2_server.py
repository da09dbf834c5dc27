"""A server on the official Python SDK of the dual-era line, over streamable HTTP.

Usage: target/peers/py2/bin/python tests/peers/servers/py2_server.py
Prints its URL as the first line.
"""

import socket

import uvicorn
from mcp.server import MCPServer

server = MCPServer("py2")


@server.tool()
def echo(text: str) -> str:
    """Answers with the text."""
    return text


listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error")).run([listener])
