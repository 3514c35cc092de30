"""What clients of Deepgram's `/v1/listen` say as text."""

import msgspec


class KeepAlive(msgspec.Struct, tag_field="type"):
    """Nothing is to be said, but the connection is to stay."""


class FinalizeNow(msgspec.Struct, tag_field="type", tag="Finalize"):
    """Have all that was said until now, in whichever channel."""

    channel: int | None = None
    """Deepgram's clients may name one. All are finalized, and each has its answer."""


class CloseStream(msgspec.Struct, tag_field="type"):
    """No more sound comes."""


class Configure(msgspec.Struct, tag_field="type"):
    """Other key terms from now on."""

    keyterms: list[str] | None = None
    features: dict[str, bool] | None = None


Message = KeepAlive | FinalizeNow | CloseStream | Configure
DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
