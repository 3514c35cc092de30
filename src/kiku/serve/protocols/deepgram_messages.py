"""The text messages of clients of Deepgram's `/v1/listen`."""

import msgspec


class KeepAlive(msgspec.Struct, tag_field="type"):
    """The connection is to stay open, though no sound comes."""


class FinalizeNow(msgspec.Struct, tag_field="type", tag="Finalize"):
    """Finalize all that was said until now, whatever `channel` says."""

    channel: int | None = None
    """Deepgram's clients may name one. All channels are finalized, and each has its answer."""


class CloseStream(msgspec.Struct, tag_field="type"):
    """No more sound comes."""


class Configure(msgspec.Struct, tag_field="type"):
    """Other key terms from now on."""

    keyterms: list[str] | None = None
    features: dict[str, bool] | None = None


ListenMessage = KeepAlive | FinalizeNow | CloseStream | Configure
DECODER: msgspec.json.Decoder[ListenMessage] = msgspec.json.Decoder(ListenMessage)
