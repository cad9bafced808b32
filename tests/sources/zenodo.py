"""A local server that answers like Zenodo's record API, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Zenodo:
    """The files of one record, and the faults to inject: each request uses up the next one."""

    record: int
    files: dict[str, bytes]
    faults: list[str] = field(default_factory=list)  # for file requests, in order; "" for none
    record_faults: list[str] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    url: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the record as the API gives it."""
        entries = []
        for name, data in self.files.items():
            entries.append(
                {
                    "id": hashlib.md5(name.encode()).hexdigest(),
                    "key": self.names.get(name, name),
                    "size": self.sizes.get(name, len(data)),
                    "checksum": self.checksums.get(name, f"md5:{hashlib.md5(data).hexdigest()}"),
                    "links": {"self": f"{self.url}/api/records/{self.record}/files/{name}/content"},
                }
            )
        return {"id": self.record, "state": "done", "submitted": True, "files": entries}


@contextmanager
def serve(zenodo: Zenodo) -> Iterator[Zenodo]:
    """Serve the record while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            _answer(self, zenodo)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    zenodo.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield zenodo
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, zenodo: Zenodo) -> None:
    byte_range = request.headers.get("Range")
    zenodo.requests.append((request.path, byte_range))
    root = f"/api/records/{zenodo.record}"
    if request.path == root:
        fault = zenodo.record_faults.pop(0) if zenodo.record_faults else ""
        if _fail(request, fault, zenodo):
            return
        _send(request, 200, b"<html>" if fault == "html" else json.dumps(zenodo.describe()).encode(), {})
        return
    name = request.path.removeprefix(f"{root}/files/").removesuffix("/content").removeprefix("/moved/")
    if name not in zenodo.files:
        _send(request, 404, b"", {})
        return
    fault = zenodo.faults.pop(0) if zenodo.faults else ""
    if _fail(request, fault, zenodo):
        return
    if fault == "redirect":
        _send(request, 302, b"", {"Location": f"{zenodo.url}/moved/{name}"})
        return
    _send_file(request, zenodo.files[name], byte_range, fault)


def _send_file(request: BaseHTTPRequestHandler, data: bytes, byte_range: str | None, fault: str) -> None:
    start = int(byte_range.removeprefix("bytes=").partition("-")[0]) if byte_range else 0
    if byte_range and start >= len(data):
        _send(request, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return
    body, status, headers = data[start:], 206 if byte_range else 200, {}
    if byte_range:
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    if fault == "norange" and byte_range:
        body, status, headers = data, 200, {}
    if fault == "otherrange" and byte_range:
        headers = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"}
    if fault == "corrupt":
        body = bytes([body[0] ^ 1]) + body[1:]
    if fault == "longer":
        body += b"more"
    promised = {"cut": len(body), "lies": len(body) + 1000}.get(fault, len(body))
    if fault == "cut":
        body = body[: len(body) // 2]
    request.send_response(status)
    for key, value in headers.items():
        request.send_header(key, value)
    request.send_header("Content-Length", str(promised))
    request.end_headers()
    request.wfile.write(body)
    if promised != len(body):
        request.close_connection = True


def _fail(request: BaseHTTPRequestHandler, fault: str, zenodo: Zenodo) -> bool:
    """Answer with the fault's status (`429`, `404`, or `503:7` with Retry-After) and return True, if it has one."""
    status, _, wait = fault.partition(":")
    if fault == "drop":
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)
        return True
    if not status.isdecimal():
        return False
    _send(request, int(status), b"", {"Retry-After": wait} if wait else {})
    return True


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for key, value in headers.items():
        request.send_header(key, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
