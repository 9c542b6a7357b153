"""What answers as a Qdrant server does, as far as a store that opens and writes asks."""

from __future__ import annotations

import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any


class Server(ThreadingHTTPServer):
    """Listens on a port of loopback, and notes every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses: tuple[int, str] | None = None
        self.metadata: Any = {}
        self.requests: list[tuple[str, str, int]] = []
        self.answers = Event()
        """While it is not set, no request is answered."""
        self.answers.set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    """Answers each request of a connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.command, self.path, len(body)))
        self.server.answers.wait()
        status, result = 200, self.result(json.loads(body or "{}"))
        refuses = self.server.refuses
        # What is not there is not there to read either.
        if refuses and "/points" in self.path and (self.command == "PUT" or refuses[0] == 404):
            status, message = refuses
            content = message.encode()
        else:
            content = json.dumps({"result": result, "status": "ok", "time": 0}).encode()
        with suppress(ConnectionError):  # nobody waits for it any more
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def result(self, body: Any) -> Any:
        path = self.path.partition("?")[0]
        if path.endswith("/exists"):
            return {"exists": bool(self.server.metadata)}
        if path.endswith("/points/count"):
            return {"count": 0}
        if path.endswith("/points") and self.command == "POST":
            return []
        if self.command == "PUT" and path == "/collections/docs":
            self.server.metadata = body["metadata"]
            return True
        if self.command == "GET":
            return _info(self.server.metadata)
        return {"operation_id": 1, "status": "completed"}

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *args: object) -> None:
        pass


def _info(metadata: Any) -> dict[str, Any]:
    return {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "points_count": 0,
        "payload_schema": {},
        "config": {
            "params": {"vectors": {"size": 32, "distance": "Cosine"}},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1_000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": metadata,
        },
    }
