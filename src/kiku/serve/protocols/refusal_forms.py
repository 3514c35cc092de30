"""A refusal in the form of the protocol at whose path it is given.

Whoever refuses a client before its protocol has looked at the request (access, limits, slots)
writes one sentence: `Refusal(429, {"error": "too many requests: ..."})`. Here the sentence becomes
the error that the clients of the path can read.
"""

from collections.abc import Mapping
from http import HTTPStatus

from kiku.serve.protocols import deepgram_query, openai_rest
from kiku.serve.protocols.interface import ClientRequest, Refusal

_OPENAIS_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded", 503: "server_busy"}
_DEEPGRAMS_CODES = {401: "INVALID_AUTH", 429: "TOO_MANY_REQUESTS"}


def in_form(refusal: Refusal, path: str, id: str) -> Refusal:
    """A refusal in the form of its path's protocol; one that has its form already stays as it is.

    Args:
        refusal: whose body is a sentence, alone or under "error".
        path: of the request.
        id: of the request, by which Deepgram's clients name it.
    """
    body, status = refusal.body, refusal.status
    message = body.get("error") if isinstance(body, Mapping) else body
    if not isinstance(message, str):
        return refusal
    if deepgram_query.is_deepgrams(path):
        code = _DEEPGRAMS_CODES.get(status) or HTTPStatus(status).phrase
        formed = deepgram_query.refusal(ClientRequest(path, id=id), message, status, code)
    elif openai_rest.is_openais(path):
        formed = openai_rest.error(status, message, code=_OPENAIS_CODES.get(status))
    else:
        return refusal
    formed.headers.update(refusal.headers)
    return formed
