"""The answer to a request for a socket's path that does not ask for a socket.

Most often a proxy in between has dropped the request's `Upgrade`.
"""

from kiku.serve.protocols.interface import Refusal

_HINT = "connect as a WebSocket; a proxy in between must pass Upgrade on"


def no_socket(path: str, method: str, others: tuple[str, ...]) -> Refusal:
    """The refusal of a request.

    Args:
        path: at which there is a socket.
        method: of the request.
        others: methods that are answered at the path.
    """
    if method in ("GET", "HEAD"):
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        return Refusal(426, {"error": _HINT}, headers)
    allowed = ", ".join(("GET", *others))
    why = f"{path} does not answer {method[:20]}: {_HINT}"
    return Refusal(405, {"error": why}, {"Allow": allowed})
