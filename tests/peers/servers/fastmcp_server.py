"""A server on FastMCP, the framework, over stdio.

Usage: target/peers/py2/bin/python tests/peers/servers/fastmcp_server.py
"""

from fastmcp import FastMCP

server = FastMCP("fastmcp")


@server.tool
def echo(text: str) -> str:
    """Answers with the text."""
    return text


server.run(transport="stdio", show_banner=False)
