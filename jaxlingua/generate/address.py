"""Where the page is reached: a port of this machine that nothing else listens on, and a warning beyond it."""

import errno
import importlib.util
import ipaddress
import socket
from typing import Literal

from jaxlingua.errors import ConfigError

FIRST_PORT = 7860  # Gradio's own
_PORTS = 100  # tried after one another where none was asked for


def check_page(host: str, port: int | Literal["auto"]) -> None:
    """Refuse, before a model is opened, a page that could not be served.

    Raises: ConfigError.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError(
            '--web: given, which needs Gradio; it is not installed; pip install "jaxlingua[web]"'
        )
    listen(host, port).close()


def listen(host: str, port: int | Literal["auto"]) -> socket.socket:
    """A socket that listens at one address of `host`; "auto" is the first free port from 7860.

    Raises: ConfigError for a host that is none of this machine, or a port that is taken or not allowed.
    """
    family, address = _address(host)
    if port != "auto":
        return _bound(family, address, port, host)
    for free in range(FIRST_PORT, FIRST_PORT + _PORTS):
        try:
            return _bound(family, address, free, host)
        except _TakenError:
            continue
    last = FIRST_PORT + _PORTS - 1
    raise ConfigError(f"--port: auto given; {FIRST_PORT} to {last} are all taken; give a free one")


def is_loopback(listening: socket.socket) -> bool:
    """Whether only programs on this machine reach a socket."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def url_of(listening: socket.socket) -> str:
    """What is opened in a browser on this machine."""
    address, port = listening.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:  # all addresses, so also this one
        address = "::1" if listening.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


class _TakenError(ConfigError):
    """A port that another program listens on."""


def _address(host: str) -> tuple[socket.AddressFamily, str]:
    """Family and number of a host's first address."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ConfigError(
            f"--host: {host!r} given, which has no address; 127.0.0.1 is this machine alone, 0.0.0.0 all its "
            f"addresses; give one of them, or a name or number that this machine has"
        ) from None
    # "localhost" has both kinds; browsers try the number that people write.
    family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, address[0]


def _bound(family: socket.AddressFamily, address: str, port: int, host: str) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of connections that have just ended
    try:
        listening.bind((address, port))
        listening.listen()
        return listening
    except (OSError, OverflowError) as error:
        listening.close()
        raise _refusal(error, port, host) from None


def _refusal(error: Exception, port: int, host: str) -> ConfigError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return _TakenError(
            f"--port: {port} given, which another program listens on; a free one is needed; give another, or "
            f"leave --port out"
        )
    if number == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"--host: {host!r} given, which is no address of this machine; 127.0.0.1 is this machine alone, "
            f"0.0.0.0 all its addresses; give one that it has"
        )
    allowed = "1 to 65535, below 1024 for administrators only"
    return ConfigError(f"--port: {port} given; {allowed}; give another, or leave --port out")
