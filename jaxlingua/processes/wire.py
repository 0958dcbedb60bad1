"""Lines of JSON both ways over one socket, without ever blocking."""

import json
import os
import socket
import threading
import time

LINE_BYTES = 2**20  # longer ones are not ours
_CHUNK_BYTES = 2**16
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class Wire:
    """One end of a connection: any thread puts messages in, one thread takes them out.

    `is_closed` becomes true when the other end has gone or sends what is not one JSON object per line.
    """

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A worker that outlives its killed parent would keep the connection open, and the death unseen.
        os.register_at_fork(after_in_child=connection.close)
        self.socket = connection
        self.is_closed = False
        self.heard = time.monotonic()
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._put_back: list[dict] = []
        self._lock = threading.Lock()

    @property
    def is_waiting(self) -> bool:
        """Whether something could not be sent yet; `flush` tries again."""
        return bool(self._outgoing)

    def put(self, message: dict) -> None:
        """Send `message`, or keep it for `flush` where the connection is full."""
        with self._lock:
            self._outgoing += json.dumps(message).encode() + b"\n"
            self._push()

    def flush(self) -> None:
        """Send what is left."""
        with self._lock:
            self._push()

    def receive(self) -> list[dict]:
        """The messages that have come in since the last call; none if none."""
        try:
            for _ in range(LINE_BYTES // _CHUNK_BYTES):
                chunk = self.socket.recv(_CHUNK_BYTES)
                self.heard = time.monotonic()
                if not chunk:
                    self.is_closed = True
                    break
                self._incoming += chunk
        except BlockingIOError:
            pass
        except OSError:
            self.is_closed = True
        *lines, rest = bytes(self._incoming).split(b"\n")
        self._incoming = bytearray(rest)
        if len(rest) > LINE_BYTES:
            self.is_closed = True
        messages, self._put_back = self._put_back, []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self.is_closed = True
                break
            messages.append(message)
        return messages

    def put_back(self, messages: list[dict]) -> None:
        """Let the next `receive` give these first; one reader has got more than was for it."""
        self._put_back = messages

    def close(self) -> None:
        """Hang up."""
        self.is_closed = True
        self.socket.close()

    def _push(self) -> None:
        try:
            while self._outgoing:
                sent = self.socket.send(self._outgoing[:_CHUNK_BYTES], _NO_SIGNAL)
                del self._outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()  # the other end has gone, which `receive` finds out
