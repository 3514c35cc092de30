"""What clients of Deepgram's `/v1/listen` say as text."""

import msgspec


class KeepAlive(msgspec.Struct, tag_field="type"):
    """Nothing is to be said, but the connection is to stay."""


class FinalizeNow(msgspec.Struct, tag_field="type", tag="Finalize"):
    """Have all that was said until now."""

    channel: int | None = None


class CloseStream(msgspec.Struct, tag_field="type"):
    """No more sound comes."""


class Configure(msgspec.Struct, tag_field="type"):
    """Other key terms from now on."""

    keyterms: list[str] | None = None
    features: dict[str, bool] | None = None


Message = KeepAlive | FinalizeNow | CloseStream | Configure
DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
