"""Deepgram's messages, checked strictly against the types of its SDK, whose own parser lets
anything through."""

import json
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import pydantic

from tests.serve.deepgram_sdk import (
    ListenV1Response,
    V1SocketClientResponse,
    V2SocketClientResponse,
)


def _by_type(union: Any) -> dict[str, type[pydantic.BaseModel]]:
    return {one.model_fields["type"].default: one for one in typing.get_args(union)}


V1: Mapping[str, type[pydantic.BaseModel]] = _by_type(V1SocketClientResponse)
V2: Mapping[str, type[pydantic.BaseModel]] = _by_type(V2SocketClientResponse)

_KNOWN_EXTRA = {"punctuated_word"}
"""What Deepgram sends and the SDK's type of a recording's word leaves out."""


def checked(text: str, known: Mapping[str, type[pydantic.BaseModel]]) -> dict[str, Any]:
    """A message, after it was found to be one that the SDK knows, whole and of the right types."""
    message = json.loads(text)
    kind = known[message["type"]]
    _check(kind.model_validate_json(text, strict=True))
    return message


def checked_answer(text: str) -> dict[str, Any]:
    """As `checked`, for the answer to a recording."""
    answer = json.loads(text)
    created = datetime.fromisoformat(answer["metadata"]["created"])
    typed = {**answer, "metadata": {**answer["metadata"], "created": created}}
    _check(ListenV1Response.model_validate(typed, strict=True))
    return answer


def _check(value: Any) -> None:
    if isinstance(value, list):
        for one in typing.cast("list[Any]", value):
            _check(one)
    if not isinstance(value, pydantic.BaseModel):
        return
    extra = set(value.model_extra or ()) - _KNOWN_EXTRA
    assert not extra, f"{type(value).__name__} knows no {extra}"
    for name, info in type(value).model_fields.items():
        one = getattr(value, name)
        names = _literals(info.annotation)
        assert not names or one in names, f"{name} must be one of {names}, not {one!r}"
        _check(one)


def _literals(annotation: Any) -> tuple[Any, ...]:
    """The names that a field may have, where the type lists them and then lets anything in."""
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    found: list[Any] = []
    for one in typing.get_args(annotation):
        if one is type(None):
            found.append(None)
        elif typing.get_origin(one) is Literal:
            found += typing.get_args(one)
    return tuple(found) if any(one is not None for one in found) else ()
