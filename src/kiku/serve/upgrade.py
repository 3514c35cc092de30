"""The answer to a request for a socket's path that does not ask for a socket.

Most often a proxy in between has dropped the request's `Upgrade`.
"""

from kiku.serve.protocols import openai_rest
from kiku.serve.protocols.deepgram_query import refusal
from kiku.serve.protocols.interface import ClientRequest, Refusal

_HINT = "connect as a WebSocket; a proxy in between must pass Upgrade on"


def no_socket(request: ClientRequest, method: str, others: tuple[str, ...]) -> Refusal:
    """The refusal of a request, in the form of its path's protocol.

    Args:
        request: for a path at which there is a socket.
        method: of the request.
        others: methods that are answered at the path.
    """
    if method in ("GET", "HEAD"):
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
        return _in_form(request, 426, "Upgrade Required", _HINT, headers)
    allowed = ", ".join(("GET", *others))
    why = f"{request.path} does not answer {method[:20]}: {_HINT}"
    return _in_form(request, 405, "Method Not Allowed", why, {"Allow": allowed})


def _in_form(
    request: ClientRequest, status: int, code: str, message: str, headers: dict[str, str]
) -> Refusal:
    if openai_rest.is_openais(request.path):
        return openai_rest.in_form(Refusal(status, {"error": message}, headers))
    if request.path.endswith("/listen"):
        refused = refusal(request, message, status, code)
        refused.headers.update(headers)
        return refused
    return Refusal(status, {"error": message}, headers)
