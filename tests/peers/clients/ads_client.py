"""A discovery client that knows nothing of us but a type's name: Envoy's own
protocol buffers and gRPC's own stack, to see that what we speak is what they mean.

It subscribes to everything, takes pushes up to their marker, answers each, and
says what it was given.

Usage: target/peers/py2/bin/python tests/peers/clients/ads_client.py HOST:PORT
       [--node ID] [--label KEY=VALUE ...] [--pushes N] [--have NAME=VERSION ...] [--refuse REASON]
"""

import argparse
import queue
import sys
import threading

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import struct_pb2
from google.rpc import code_pb2, status_pb2

from lines import DEADLINE_SECONDS, say

ITEM = "type.googleapis.com/magictunnel.discovery.v1.Item"
MARKER = "marker"
# How long the server may take to end the stream once we have ended our side.
GOODBYE_SECONDS = 2


def main():
    arguments = read_arguments()
    requests = queue.SimpleQueue()
    requests.put(subscription(arguments))
    with grpc.insecure_channel(arguments.address) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        responses = stub.DeltaAggregatedResources(iter(requests.get, None), timeout=DEADLINE_SECONDS)
        held = dict(arguments.have)
        for _ in range(arguments.pushes):
            marker = take_push(responses, held)
            requests.put(answer(marker, arguments.refuse))
        requests.put(None)
        wait_for_end(responses)


def read_arguments():
    def pair(text):
        key, separator, value = text.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
        return key, value

    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="HOST:PORT of the control plane")
    parser.add_argument("--node", default="peer-node", help="the id to give as the node's")
    parser.add_argument("--label", type=pair, action="append", default=[])
    parser.add_argument("--pushes", type=int, default=1, help="how many pushes to take")
    parser.add_argument("--have", type=pair, action="append", default=[], help="an item held from an earlier stream")
    parser.add_argument("--refuse", help="answer each push with a NACK that says this")
    return parser.parse_args()


def subscription(arguments):
    metadata = struct_pb2.Struct()
    metadata.update({"labels": dict(arguments.label)})
    return discovery_pb2.DeltaDiscoveryRequest(
        node=base_pb2.Node(id=arguments.node, user_agent_name="magictunnel-peer", metadata=metadata),
        type_url=ITEM,
        resource_names_subscribe=["*"],
        initial_resource_versions=dict(arguments.have),
    )


def take_push(responses, held):
    """Reads responses up to one with the marker; returns that one."""
    changed, removed, parts = {}, [], 0
    for response in responses:
        if response.type_url != ITEM:
            say("other", type_url=response.type_url, names=[resource.name for resource in response.resources])
            continue
        parts += 1
        for resource in response.resources:
            if resource.resource.type_url != ITEM:
                raise ValueError(f"{resource.name} is a {resource.resource.type_url}")
            changed[resource.name] = resource.version
        removed += response.removed_resources
        if MARKER in changed:
            held.update(changed)
            for name in removed:
                held.pop(name, None)
            say(
                "push",
                version=response.system_version_info,
                nonce=response.nonce,
                parts=parts,
                changed=changed,
                removed=sorted(removed),
                held=held,
            )
            return response
    raise EOFError("the server ended the stream before a marker")


def answer(marker, refusal):
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=ITEM, response_nonce=marker.nonce)
    if refusal is not None:
        request.error_detail.CopyFrom(status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=refusal))
    return request


def wait_for_end(responses):
    """Lets the last answer arrive: to cancel at once could overtake it."""
    timer = threading.Timer(GOODBYE_SECONDS, responses.cancel)
    timer.start()
    try:
        for _ in responses:
            pass
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.CANCELLED:
            raise
    finally:
        timer.cancel()


try:
    main()
except Exception as error:
    say("error", message=f"{type(error).__name__}: {error}")
    sys.exit(1)
