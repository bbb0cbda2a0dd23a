"""A server of one file, in the ways that its paths say."""

import hashlib
import http.server
import threading
from contextlib import contextmanager

CONTENT = bytes(range(256)) * 1024
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT in the ways that its paths say, and notes what it was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.ranges = True
        self.dies_after = {}

    def url(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


@contextmanager
def serving():
    """Return a context with a server that a thread of it runs."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *given):
        """Say nothing."""

    def do_GET(self):
        server, way = self.server, self.path[1:]
        begun = self.headers.get("Range", "")
        server.asked.append((way, begun))
        if way == "missing":
            self.send_error(404)
            return
        content = CONTENT
        if way == "damaged":
            content = b"\xff" + CONTENT[1:]
        elif way == "short":
            content = CONTENT[:-5]
        elif way == "long":
            content = CONTENT + b"more"
        first = int(begun[6:-1]) if begun and server.ranges else 0
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        part = content[first:]
        if server.dies_after.get(way):
            # The connection ends before the file does.
            part = part[: server.dies_after[way].pop(0)]
        self.wfile.write(part)
