"""Uses McpService with nothing but what reflection tells: no generated code.

Usage: target/peers/py2/bin/python tests/peers/clients/mcp_service_client.py HOST:PORT
       [--gateway NAME] [--key KEY] --calls '[["Method", {request}], ...]'

Says the answers of each call, at most --most of a stream. For `Session` the
request is a list of what the client says; its stream stays open until each call
has ended, and questions are answered with `--answer`. Bytes are JSON, and are
written and said as what they hold.
"""

import argparse
import json
import queue
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lines import DEADLINE_SECONDS, say

SERVICE = "magictunnel.mcp.v1.McpService"
BYTES_MAX = 64 << 20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--gateway")
    parser.add_argument("--key")
    parser.add_argument("--calls", type=json.loads, default=[])
    parser.add_argument("--answer", type=json.loads, default={})
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--deadline", type=float, default=DEADLINE_SECONDS)
    arguments = parser.parse_args()
    options = [("grpc.max_receive_message_length", BYTES_MAX), ("grpc.max_send_message_length", BYTES_MAX)]
    metadata = []
    if arguments.gateway:
        metadata.append(("mt-gateway", arguments.gateway))
    if arguments.key:
        metadata.append(("x-api-key", arguments.key))
    with grpc.insecure_channel(arguments.address, options=options) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName(SERVICE)
        for name, request in arguments.calls:
            try:
                call(channel, service.FindMethodByName(name), request, metadata, arguments)
            except grpc.RpcError as error:
                say("refused", method=name, code=error.code().name, message=error.details(), info=info(error))


def call(channel, method, request, metadata, arguments):
    requests = message_factory.GetMessageClass(method.input_type)
    responses = message_factory.GetMessageClass(method.output_type)
    kinds = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    stub = getattr(channel, "_".join(kinds))(
        f"/{SERVICE}/{method.name}",
        request_serializer=requests.SerializeToString,
        response_deserializer=responses.FromString,
    )
    if method.client_streaming:
        return session(stub, requests, request, metadata, arguments)
    answer = stub(written(requests(), request), metadata=metadata, timeout=arguments.deadline)
    if not method.server_streaming:
        return say("answer", method=method.name, answer=read(answer))
    for number, message in enumerate(answer, 1):
        say("answer", method=method.name, answer=read(message))
        if number >= arguments.most:
            answer.cancel()
            break


def session(stub, requests, said, metadata, arguments):
    """Says everything at once, answers questions, and ends when each call has."""
    out = queue.Queue()
    for message in said:
        out.put(message)
    running = {message["call"]["id"] for message in said if "call" in message}

    def speak():
        while (message := out.get()) is not None:
            yield written(requests(), message)

    for message in stub(speak(), metadata=metadata, timeout=arguments.deadline):
        answer = read(message)
        say("answer", method="Session", answer=answer)
        if "ask" in answer:
            reply = {"id": answer["id"], "key": answer["ask"]["key"]}
            known = arguments.answer.get(answer["ask"]["method"])
            out.put({"reply": {**reply, **({"refusal": "no"} if known is None else {"result": known})}})
        if "result" in answer or "failure" in answer:
            running.discard(answer["id"])
            if not running:
                out.put(None)


def written(message, fields):
    """Fills a message from what JSON has for it."""
    for name, value in fields.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, name, json.dumps(value).encode())
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, name).update(value)
        elif field.message_type is not None:
            getattr(message, name).SetInParent()
            written(getattr(message, name), value)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


def read(message):
    """What a message holds, as JSON has it."""
    fields = {}
    for field, value in message.ListFields():
        fields[field.name] = [plain(field, item) for item in value] if hasattr(value, "append") or hasattr(value, "add") else plain(field, value)
    return fields


def plain(field, value):
    if field.type == FieldDescriptor.TYPE_BYTES:
        return json.loads(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    return read(value) if field.message_type is not None else value


def info(error):
    """The ErrorInfo of a status."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    found = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(found):
            return {"reason": found.reason, "domain": found.domain, "metadata": dict(found.metadata)}
    return None


try:
    main()
except Exception as error:
    say("error", message=f"{type(error).__name__}: {error}")
    sys.exit(1)
