"""A client on the official Python SDK of the legacy line: lists, then calls.

Usage: target/peers/py1/bin/python tests/peers/clients/py1_client.py URL [--tool NAME --args JSON] [--calls JSON]
"""

import warnings
from contextlib import asynccontextmanager

from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.websocket import websocket_client

from lines import ANSWER_FORM, ANSWER_ROOT, ANSWER_TEXT, CLIENT_NAME, every_page, mcp_arguments, run, say, wire


@asynccontextmanager
async def connected(url):
    """The streams to a server, and where its session id is found, by what the URL looks like."""
    if url.startswith("ws:"):
        async with websocket_client(url) as (read, write):
            yield read, write, lambda: None
    elif url.endswith("/sse"):
        async with sse_client(url) as (read, write):
            yield read, write, lambda: None
    else:
        async with streamable_http_client(url) as streams:
            yield streams


async def main(arguments):
    async with connected(arguments.url) as (read, write, session_id):
        session = ClientSession(
            read,
            write,
            client_info=types.Implementation(name=CLIENT_NAME, version="1"),
            sampling_callback=sample,
            elicitation_callback=fill_in,
            list_roots_callback=list_roots,
        )
        async with session:
            opened = await session.initialize()
            say(
                "connected",
                protocol_version=opened.protocolVersion,
                server=wire(opened.serverInfo),
                has_session=session_id() is not None,
            )
            tools, pages = await every_page(lambda cursor: session.list_tools(params=page_at(cursor)), "tools")
            say("tools", names=[tool.name for tool in tools], pages=pages)
            for tool, values in arguments.calls:
                result = await session.call_tool(tool, values)
                say("result", tool=tool, result=wire(result))


def page_at(cursor):
    return types.PaginatedRequestParams(cursor=cursor)


async def sample(context, params):
    content = types.TextContent(type="text", text=ANSWER_TEXT)
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def fill_in(context, params):
    return types.ElicitResult(action="accept", content=ANSWER_FORM)


async def list_roots(context):
    return types.ListRootsResult(roots=[types.Root(uri=ANSWER_ROOT)])


warnings.filterwarnings("ignore", category=DeprecationWarning)
run(main(mcp_arguments(era=False)))
