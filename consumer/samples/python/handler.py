"""Handles the orders of a topic for Keylane over HTTP, with nothing but Python's standard library.

Keylane POSTs each message as a CloudEvent and never has two messages of one key under way at once, so code
for one order needs no lock against itself. `handle` is the place for your own.
"""

import base64
import json
import logging
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

PORT = int(os.environ.get("PORT", "8080"))
# To see what a failure does: the first attempt of every message of this key fails.
FAIL_KEY = os.environ.get("FAIL_KEY")


class NeverTaken(Exception):
    """No attempt will help: the message goes to the dead-letter topic at once."""


def handle(event, body):
    """Your code. Returning finishes the message; an exception means that it comes again, in its place.

    A message comes at least once: after a crash what was handled last may come again, its key's successors
    behind it. To do a thing once, write `event["sequence"]`, which only grows for one `source`, in the
    transaction that does the thing, beside the order: what is not greater than the stored one is done already.
    """
    try:
        json.loads(body)
    except ValueError as error:
        raise NeverTaken(f"the order is not JSON: {error}") from error
    if event.get("partitionkey") == FAIL_KEY and int(event["attempt"]) == 1:
        raise RuntimeError("told to fail the first attempt")


def run(event, body):
    """Handles one event and logs a line of JSON about it; the error, if there was one."""
    started, error = time.time_ns(), None
    try:
        handle(event, body)
    except Exception as problem:  # Whatever it is, it is this message's and no reason to end.
        error = problem
    line = {
        "source": event["source"],
        "key": event.get("partitionkey"),
        "sequence": int(event["sequence"]),
        "attempt": int(event["attempt"]),
        "startedUs": started // 1000,
        "endedUs": time.time_ns() // 1000,
        "ok": error is None,
    }
    logging.info("%s", json.dumps(line))
    return error


class Calls:
    """The calls that run; none begins once the end is asked for."""

    def __init__(self):
        self.changed = threading.Condition()
        self.running = 0
        self.ending = False

    def begin(self):
        with self.changed:
            self.running += not self.ending
            return not self.ending

    def end(self):
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def drain(self):
        with self.changed:
            self.ending = True
            self.changed.wait_for(lambda: self.running == 0)


CALLS = Calls()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Connections are kept for the next call.
    disable_nagle_algorithm = True

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not CALLS.begin():
            return self.answer(503, "ending")  # Not an attempt: it comes again later, or elsewhere.
        try:
            if self.headers.get_content_type() == "application/cloudevents-batch+json":
                self.batch(json.loads(content))
            else:
                self.answer(*status(run(self.event(), content)))
        finally:
            CALLS.end()

    def event(self):
        """The attributes of an event in binary mode: the headers that begin with `ce-`."""
        names = (name.lower() for name in self.headers)
        return {name[3:]: unquote(self.headers[name]) for name in names if name.startswith("ce-")}

    def batch(self, events):
        """Messages of one key, in order, where handler.batch.maxMessages is more than 1."""
        for done, event in enumerate(events):
            error = run(event, base64.b64decode(event.get("data_base64", "")))
            if error is not None:  # The first `done` are finished; the answer is about the next.
                return self.answer(*status(error), acked=done)
        self.answer(204)

    def answer(self, code, reason="", acked=None):
        body = reason.encode()
        self.send_response(code)
        if acked is not None:
            self.send_header("Keylane-Acked", str(acked))
        if CALLS.ending:
            self.send_header("Connection", "close")
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Each message is logged already."""


def status(error):
    if error is None:
        return 204, ""
    return (422 if isinstance(error, NeverTaken) else 500), str(error)


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # Every lane may connect at once.


def main():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    # The executor is in the same pod.
    server = Server(("127.0.0.1", PORT), Handler)

    def end(*_):
        # Not from this thread: it is the one that serves.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print(f"listening on 127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()
    server.socket.close()
    CALLS.drain()
    # Idle connections that the executor keeps are not waited for.


if __name__ == "__main__":
    main()
