"""Lists what a gRPC server says it serves, by both versions of reflection, and
fetches the description of each service.

Usage: target/peers/py2/bin/python tests/peers/clients/reflection_client.py HOST:PORT
"""

import argparse
import sys

import grpc
from grpc_reflection.v1alpha import reflection_pb2

from lines import DEADLINE_SECONDS, say


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="HOST:PORT of the server")
    address = parser.parse_args().address
    with grpc.insecure_channel(address) as channel:
        for version in ("v1", "v1alpha"):
            services = list_services(channel, version)
            described = [service for service in services if is_described(channel, version, service)]
            say("services", version=version, names=services, described=described)


def list_services(channel, version):
    response = ask(channel, version, reflection_pb2.ServerReflectionRequest(list_services=""))
    return sorted(service.name for service in response.list_services_response.service)


def is_described(channel, version, service):
    response = ask(channel, version, reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
    return len(response.file_descriptor_response.file_descriptor_proto) > 0


def ask(channel, version, request):
    """The two versions differ in nothing but the name of their package."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(call(iter([request]), timeout=DEADLINE_SECONDS))


try:
    main()
except Exception as error:
    say("error", message=f"{type(error).__name__}: {error}")
    sys.exit(1)
