"""What the Python clients have in common: arguments, JSON lines, fixed answers.

Each line on stdout is one JSON object with an "event". A client that fails says
so in a last line, with the event "error", and exits with 1.
"""

import argparse
import asyncio
import json
import sys
import traceback

# No test may hang on a client.
DEADLINE_SECONDS = 60

CLIENT_NAME = "magictunnel-peer"
ANSWER_TEXT = "Paris"
ANSWER_FORM = {"name": "Ada", "color": "green", "ok": True, "value": "42", "username": "ada", "email": "ada@example.com"}
ANSWER_ROOT = "file:///workspace"


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def mcp_arguments(era):
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="the endpoint of a streamable HTTP server")
    parser.add_argument("--tool", help="the tool to call")
    parser.add_argument("--args", type=json.loads, default={}, help="its arguments, as JSON")
    parser.add_argument("--calls", type=json.loads, default=[], help="further calls: a list of [tool, arguments]")
    if era:
        parser.add_argument("--era", choices=["auto", "legacy", "modern"], default="auto")
    arguments = parser.parse_args()
    if arguments.tool:
        arguments.calls.insert(0, [arguments.tool, arguments.args])
    return arguments


def run(client):
    """Runs a coroutine to its end, within the deadline."""
    try:
        asyncio.run(asyncio.wait_for(client, DEADLINE_SECONDS))
    except BaseException as error:  # Groups of exceptions and cancellations are failures too.
        traceback.print_exc()
        say("error", message="; ".join(causes(error)))
        sys.exit(1)


def causes(error):
    """The messages of an exception, or of those in a group of them."""
    if hasattr(error, "exceptions"):
        return [message for inner in error.exceptions for message in causes(inner)]
    return [f"{type(error).__name__}: {error}"]


async def every_page(list_page, items):
    """All items of a list, and how many pages it came in."""
    found, pages, cursor = [], 0, None
    while True:
        page = await list_page(cursor)
        found += getattr(page, items)
        pages += 1
        cursor = page.nextCursor if hasattr(page, "nextCursor") else page.next_cursor
        if not cursor:
            return found, pages


def wire(result):
    """A result as it is on the wire."""
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
