"""A client on the official Python SDK of the dual-era line: lists, then calls.

Usage: target/peers/py2/bin/python tests/peers/clients/py2_client.py URL
       [--era auto|legacy|modern] [--tool NAME --args JSON] [--calls JSON]
"""

import shlex

import mcp_types as types
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from lines import ANSWER_FORM, ANSWER_ROOT, ANSWER_TEXT, CLIENT_NAME, every_page, mcp_arguments, run, say, wire

MODES = {"auto": "auto", "legacy": "legacy", "modern": "2026-07-28"}


async def main(arguments):
    client = Client(
        reached_by(arguments.url),
        mode=MODES[arguments.era],
        client_info=types.Implementation(name=CLIENT_NAME, version="2"),
        sampling_callback=sample,
        elicitation_callback=fill_in,
        list_roots_callback=list_roots,
    )
    async with client:
        server = client.server_info
        say("connected", protocol_version=client.protocol_version, server=server and wire(server))
        tools, pages = await every_page(lambda cursor: client.list_tools(cursor=cursor), "tools")
        say("tools", names=[tool.name for tool in tools], pages=pages)
        for tool, values in arguments.calls:
            result = await client.call_tool(tool, values)
            say("result", tool=tool, result=wire(result))


def reached_by(target):
    """A URL, or a command line after `stdio:`."""
    if not target.startswith("stdio:"):
        return target
    command, *words = shlex.split(target.removeprefix("stdio:"))
    return StdioServerParameters(command=command, args=words)


async def sample(context, params):
    content = types.TextContent(type="text", text=ANSWER_TEXT)
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def fill_in(context, params):
    return types.ElicitResult(action="accept", content=ANSWER_FORM)


async def list_roots(context):
    return types.ListRootsResult(roots=[types.Root(uri=ANSWER_ROOT)])


run(main(mcp_arguments(era=True)))
