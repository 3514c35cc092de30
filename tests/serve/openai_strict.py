"""OpenAI's SDK lets any answer through: this does not."""

from typing import Any, TypeVar

from openai import BaseModel
from pydantic import TypeAdapter

T = TypeVar("T")


def strictly(kind: type[T], raw: bytes | str) -> T:
    """What JSON says, as one of the SDK's types: every field that must be there is, none is there
    that the type does not know, and each has the type that it should."""
    value = TypeAdapter(kind).validate_json(raw, strict=True)
    _no_extras(value)
    return value


def _no_extras(value: Any) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{type(value).__name__} knows no {value.model_extra}"
        for name in type(value).model_fields:
            _no_extras(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            _no_extras(one)
