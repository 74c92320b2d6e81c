"""The AES job as a gRPC unary call: raw bytes in and out, so no protobuf is needed.

`python -m packetcloud.testbed.peers.grpc_server`.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from packetcloud.testbed.peers.aes_job import AesJob
from packetcloud.testbed.processes import emit_event

SERVICE = "packetcloud.testbed.Aes"
METHOD = f"/{SERVICE}/Encrypt"
MAX_BODY_BYTES = 4 << 20
OPTIONS = [
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.max_receive_message_length", 8 << 20),
]
WORKERS_COUNT = 2
"""Two are the best here: one works while the other waits for bytes."""
PROCESSING_KEY = "processing-ns"


class AesServicer:
    """Answers one call; every worker thread has a buffer of its own."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._local = threading.local()

    def encrypt(self, request: bytes, context: Any) -> bytes:
        job = getattr(self._local, "job", None)
        if job is None:
            job = self._local.job = AesJob(self._key, MAX_BODY_BYTES)
        begin_ns = time.perf_counter_ns()
        result: bytes = job.encrypt(request)
        spent_ns = time.perf_counter_ns() - begin_ns
        context.set_trailing_metadata(((PROCESSING_KEY, str(spent_ns)),))
        return result


def make_server(key: bytes) -> Any:
    """Return a gRPC server with the one method; the caller adds a port and starts it."""
    method = grpc.unary_unary_rpc_method_handler(AesServicer(key).encrypt, None, None)
    server = grpc.server(ThreadPoolExecutor(WORKERS_COUNT), options=OPTIONS)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Encrypt": method}),)
    )
    return server


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", type=bytes.fromhex, required=True)
    options = parser.parse_args(arguments)
    server = make_server(options.key)
    port = server.add_insecure_port(f"{options.host}:{options.port}")
    server.start()
    emit_event("listening", address=(options.host, port))
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
