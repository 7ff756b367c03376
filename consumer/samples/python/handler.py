"""Handles the orders of a topic for Keylane over HTTP, with nothing but the standard library of Python 3.11.

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
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

PORT = int(os.environ.get("PORT", "8080"))
# To see what a failure does: the first attempt of every message of this key fails.
FAIL_KEY = os.environ.get("FAIL_KEY")
# Seconds in which calls that were on their way when the end came are still told to go elsewhere.
LINGER = 0.2
# What Keylane says of a message, and the names it has where the message is a CloudEvent with names of its own.
BESIDE = {
    "source": "keylanesource",
    "partitionkey": "keylanekey",
    "sequence": "keylaneoffset",
    "attempt": "keylaneattempt",
    "deadline": "keylanedeadline",
}


class NeverTaken(Exception):
    """No attempt will help: the message goes to the dead-letter topic at once."""


class TooLate(Exception):
    """Nobody waits for the answer any more, and the message may have come again already."""


def told(event, name):
    """What Keylane says of the message that this event is, whoever made the event."""
    return event.get(BESIDE[name] if BESIDE["sequence"] in event else name)


def handle(event, body):
    """Your code. Returning finishes the message; an exception means that it comes again, in its place.

    A message comes at least once: after a crash what was handled last may come again, its key's successors
    behind it. To do a thing once, write `int(told(event, "sequence"))`, which only grows for one
    `told(event, "source")`, in the transaction that does the thing, beside the order: what is not greater than
    the stored one is done already.
    """
    try:
        json.loads(body)
    except ValueError as error:
        raise NeverTaken(f"the order is not JSON: {error}") from error
    if FAIL_KEY and told(event, "partitionkey") == FAIL_KEY and int(told(event, "attempt")) == 1:
        raise RuntimeError("told to fail the first attempt")


def run(event, body):
    """Handles one event and logs a line of JSON about it; the error, if there was one."""
    # A process that stood still may find calls that were given up meanwhile.
    if datetime.now(timezone.utc) >= datetime.fromisoformat(told(event, "deadline")):
        return TooLate("the time of this call was over before it began")
    started, error = time.time_ns(), None
    try:
        handle(event, body)
    except Exception as problem:  # Whatever it is, it is this message's and no reason to end.
        error = problem
    line = {
        "source": told(event, "source"),
        "key": told(event, "partitionkey"),
        "sequence": int(told(event, "sequence")),
        "attempt": int(told(event, "attempt")),
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
        length = int(self.headers.get("Content-Length", 0))
        content = self.rfile.read(length)
        if len(content) < length:  # The executor is gone, and the rest of the message with it.
            self.close_connection = True
            return
        if not CALLS.begin():
            return self.answer(503, "ending")  # Not an attempt: it comes again later, or elsewhere.
        try:
            self.called(content)
        finally:
            CALLS.end()

    def called(self, content):
        """Handles the messages of a call, all of one key, in order; the answer is about the first not finished."""
        try:
            events = self.events(content)
        except (TypeError, ValueError) as error:
            return self.answer(400, str(error))
        for done, (event, body) in enumerate(events):
            error = run(event, body)
            if error is not None:
                return self.answer(status(error), str(error), acked=done)
        self.answer(204)

    def events(self, content):
        """The events of a call, each with its data: several where handler.batch.maxMessages is more than 1."""
        kind = self.headers.get_content_type()
        if kind == "application/cloudevents-batch+json":
            events = [(event, data(event)) for event in json.loads(content)]
        else:
            # The attributes of an event are the headers that begin with `ce-`.
            names = (name.lower() for name in self.headers)
            event = {name[3:]: unquote(self.headers[name]) for name in names if name.startswith("ce-")}
            if kind == "application/cloudevents+json":  # Its producer sent the whole event as JSON.
                event = json.loads(content) | event
                content = data(event)
            events = [(event, content)]
        for event, _ in events:
            missing = [name for name in BESIDE if name != "partitionkey" and told(event, name) is None]
            if missing:
                raise ValueError(f"no call of Keylane: {', '.join(missing)} missing")
        return events

    def answer(self, code, reason="", acked=None):
        body = reason.encode(errors="replace")
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


def data(event):
    """The data of an event that came as JSON."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    return json.dumps(event["data"]).encode() if "data" in event else b""


def status(error):
    if isinstance(error, NeverTaken):
        return 422
    return 503 if isinstance(error, TooLate) else 500


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # Every lane may connect at once.


def main():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    # The executor is in the same pod.
    server = Server(("127.0.0.1", PORT), Handler)

    def drain():
        CALLS.drain()
        time.sleep(LINGER)
        server.shutdown()

    def end(*_):
        # Not from this thread: it is the one that serves, and what comes meanwhile is told to go elsewhere.
        threading.Thread(target=drain).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print(f"listening on 127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever(poll_interval=0.1)
    # Idle connections that the executor keeps are not waited for.


if __name__ == "__main__":
    main()
