"""Asks outrigger's gRPC port with grpcio, and prints one line of JSON per question.

Nothing is generated beforehand: the messages are those that the reflection service describes.

    client.py calls ADDRESS [CA [CERT KEY]]     every question that ends
    client.py leave ADDRESS                     a deadline and a cancel; then waits to be killed
"""

import json
import sys
import threading

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

TIMEOUT_S = 60
INT64_MAX = 2**63 - 1


def tell(question, **answer):
    print(json.dumps({"question": question, **answer}), flush=True)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def connect(address, ca=None, cert=None, key=None):
    if ca is None:
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(ca),
        private_key=key and read(key),
        certificate_chain=cert and read(cert),
    )
    options = [("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(address, credentials, options)


class Methods:
    """Methods and messages by name, from reflection."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def method(self, service, name):
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = kind(
            f"/{service}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return request, call


def everything(request):
    message = request(min_time=0, max_time=INT64_MAX, response_batch_size=64)
    message.matchers.add(name="job", value="prometheus")
    return message


def ask_calls(channel):
    methods = Methods(channel)
    tell("services", names=sorted(methods.database.get_services()))

    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    tell("health", status=health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=TIMEOUT_S)
        tell("unknown health", code="OK")
    except grpc.RpcError as error:
        tell("unknown health", code=error.code().name)

    request, info = methods.method("thanos.info.Info", "Info")
    answer = info(request(), timeout=TIMEOUT_S)
    labels = {label.name: label.value for label in answer.label_sets[0].labels}
    tell("info", component=answer.ComponentType, labels=labels, max_time=answer.store.max_time)

    request, series = methods.method("thanos.Store", "Series")
    for name, compression in [
        ("series", grpc.Compression.NoCompression),
        ("series in gzip", grpc.Compression.Gzip),
    ]:
        call = series(everything(request), timeout=TIMEOUT_S, compression=compression)
        found = [one for message in call for one in message.batch.series]
        sets = [[(label.name, label.value) for label in one.labels] for one in found]
        tell(
            name,
            code=call.code().name,
            count=len(found),
            is_sorted=sets == sorted(sets),
            chunks=sum(len(one.chunks) for one in found),
        )
    bad = everything(request)
    bad.matchers.add(type=2, name="job", value="(")
    call = series(bad, timeout=TIMEOUT_S)
    try:
        list(call)
    except grpc.RpcError:
        pass
    tell("bad pattern", code=call.code().name, details=call.details())

    request, label_names = methods.method("thanos.Store", "LabelNames")
    answer = label_names(request(end=INT64_MAX), timeout=TIMEOUT_S)
    tell("label names", names=list(answer.names))

    unknown = channel.unary_unary("/thanos.Store/Nothing")
    try:
        unknown(b"", timeout=TIMEOUT_S)
        tell("unknown method", code="OK")
    except grpc.RpcError as error:
        tell("unknown method", code=error.code().name)


def ask_leave(channel):
    request, series = Methods(channel).method("thanos.Store", "Series")
    call = series(everything(request), timeout=1)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    tell("deadline", code=call.code().name)
    call = series(everything(request), timeout=TIMEOUT_S)
    next(call)
    call.cancel()
    tell("cancel", code=call.code().name)
    # The connection stays: it is the cancel that must be seen.
    threading.Event().wait()


def main():
    what, address, *tls = sys.argv[1:]
    with connect(address, *tls) as channel:
        {"calls": ask_calls, "leave": ask_leave}[what](channel)


main()
