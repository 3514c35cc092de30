"""What Kyutai's clients accept, as strict types written from what is known of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgpack
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_STRICT = ConfigDict(extra="forbid", strict=True)


class _Message(BaseModel):
    model_config = _STRICT


class Ready(_Message):
    type: Literal["Ready"]


class Word(_Message):
    type: Literal["Word"]
    text: str = Field(min_length=1, pattern=r"^\S+$")
    start_time: float = Field(ge=0)


class EndWord(_Message):
    type: Literal["EndWord"]
    stop_time: float = Field(ge=0)


class Step(_Message):
    type: Literal["Step"]
    step_idx: int = Field(ge=1)
    prs: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=4, max_length=4)
    buffered_pcm: int = Field(ge=0)


class Marker(_Message):
    type: Literal["Marker"]
    id: int


class Error(_Message):
    type: Literal["Error"]
    message: str = Field(min_length=1)


_ANY: TypeAdapter[Any] = TypeAdapter(
    Annotated[Ready | Word | EndWord | Step | Marker | Error, Field(discriminator="type")]
)


def checked(data: bytes) -> dict[str, Any]:
    """A message that we sent, exactly as Kyutai's clients know it."""
    message = msgpack.unpackb(data)
    _ANY.validate_python(message)
    return message


def checked_list(messages: list[Mapping[str, Any]]) -> None:
    """The same of an answer in JSON."""
    for message in messages:
        _ANY.validate_python(message)
