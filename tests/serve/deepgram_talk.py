"""A conversation with one of Deepgram's protocols, without sockets."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kiku
from kiku.audio import read_file
from kiku.errors import KikuError
from kiku.serve.protocols.deepgram import DeepgramProtocol
from kiku.serve.protocols.deepgram_flux import FluxProtocol
from kiku.serve.protocols.interface import (
    Action,
    ClientRequest,
    Close,
    Decode,
    FinalizeStream,
    Hangup,
    ModelCard,
    Open,
    Push,
    Send,
)
from kiku.stream import Event
from tests.serve.deepgram_types import V1, V2, checked

CARD = ModelCard("demo", ("nova-*", "flux-*"), ("en",), version="0.1")
RAW = {"encoding": "linear16", "sample_rate": "16000"}
CLOSE = '{"type":"CloseStream"}'
FINALIZE = '{"type":"Finalize"}'
FORCE = '{"type":"ForceEndTurn"}'

AnyProtocol = DeepgramProtocol | FluxProtocol


def request(path: str, query: dict[str, str]) -> ClientRequest:
    """A client's request."""
    return ClientRequest(path, tuple(query.items()), id="4b6c", at=1_790_000_000.25)


def listen(**query: str) -> DeepgramProtocol:
    """A client of `/v1/listen` with raw sound."""
    return DeepgramProtocol(request("/v1/listen", {**RAW, **query}), CARD)


def flux(**query: str) -> FluxProtocol:
    """A client of `/v2/listen` with raw sound."""
    return FluxProtocol(request("/v2/listen", {**RAW, **query}), CARD)


class Conversation:
    """Keeps what a protocol does: checked messages, and what else it wants."""

    def __init__(self, protocol: AnyProtocol) -> None:
        self.protocol = protocol
        self._known = V1 if isinstance(protocol, DeepgramProtocol) else V2
        self.messages: list[dict[str, Any]] = []
        self.asks: list[Action] = []
        self.hangup: Hangup | None = None
        self.do(protocol.begin())

    def do(self, actions: Sequence[Action]) -> list[dict[str, Any]]:
        """Take note of actions; the messages among them."""
        said: list[dict[str, Any]] = []
        for action in actions:
            assert self.hangup is None, "something is wanted behind the end"
            if isinstance(action, Send):
                assert isinstance(action.data, str)
                said.append(checked(action.data, self._known))
            elif isinstance(action, Hangup):
                self.hangup = action
            else:
                self.asks.append(action)
        self.messages += said
        return said

    def receive(self, *messages: str | bytes) -> list[dict[str, Any]]:
        """Messages of the client."""
        return [one for message in messages for one in self.do(self.protocol.received(message))]

    def tell(self, *events: Event) -> list[dict[str, Any]]:
        """Events of the stream."""
        return [one for event in events for one in self.do(self.protocol.event(event, 0.0))]

    @property
    def tag(self) -> str | None:
        """Of what the stream was asked to finalize last."""
        return next(one.tag for one in reversed(self.asks) if isinstance(one, FinalizeStream))

    def finals(self, channel: int = 0) -> list[dict[str, Any]]:
        """The results that are final."""
        return [
            one
            for one in self.messages
            if one["type"] == "Results" and one["is_final"] and one["channel_index"][0] == channel
        ]


def text_of(result: dict[str, Any]) -> str:
    """What a result says."""
    return result["channel"]["alternatives"][0]["transcript"]


def words_of(results: Iterable[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Words and times of several results."""
    return [
        (word["punctuated_word"], word["start"], word["end"])
        for one in results
        for word in one["channel"]["alternatives"][0]["words"]
    ]


def heard(transcript: Iterable[Any], channel: int | None = None) -> list[tuple[str, float, float]]:
    """The same of a transcript."""
    return [
        (word.text, round(word.start, 3), round(word.end, 3))
        for word in transcript
        if channel is None or word.channel == channel
    ]


def pcm(path: Path) -> tuple[bytes, int]:
    """The samples of a recording in 16 bits, and their rate."""
    chunks = [one for one in read_file(path) if isinstance(one.data, np.ndarray)]
    samples = np.concatenate([np.asarray(one.data).reshape(len(one.data), -1)[:, 0]
                              for one in chunks])  # fmt: skip
    if samples.dtype.kind == "f":
        samples = (samples * 32_767).clip(-32_768, 32_767).astype(np.int16)
    elif samples.dtype == np.int32:
        samples = (samples >> 16).astype(np.int16)
    return samples.astype(np.int16).tobytes(), chunks[0].rate


class LiveConversation(Conversation):
    """A conversation whose stream is a real one."""

    def __init__(self, recognizer: kiku.Recognizer, protocol: AnyProtocol) -> None:
        self._recognizer = recognizer
        first = protocol.initial_open
        assert first is not None
        self._stream = recognizer.stream(first.options)
        super().__init__(protocol)

    def do(self, actions: Sequence[Action]) -> list[dict[str, Any]]:
        """Do what is wanted, too."""
        said = super().do(actions)
        wanted, self.asks = self.asks, []
        for action in wanted:
            said += self._ask(action)
        return said

    def _ask(self, action: Action) -> list[dict[str, Any]]:
        then: Callable[[], Sequence[Action]] = tuple
        try:
            match action:
                case Open(options):
                    self._stream.stop()
                    self._stream = self._recognizer.stream(options)
                    then = self.protocol.opened
                case Push(samples, rate):
                    self._stream.push(samples, rate=rate)
                case FinalizeStream(tag, cut):
                    self._stream.finalize(tag, cut=cut)
                case Decode(options):
                    self._stream.set_decoding(options)
                    then = self.protocol.decoded
                case Close():
                    self._stream.close()
                case _:
                    raise AssertionError(action)
        except KikuError as error:
            return self.do(self.protocol.rejected(error))
        return self.do(then())

    def hear(self, sound: bytes, step: int) -> None:
        """Send sound in messages of `step` bytes, and hear what comes of each."""
        for at in range(0, len(sound), step):
            self.receive(sound[at : at + step])
            self._recognizer.scheduler.drive(lambda: self._stream.waiting_s < 0.08)
            self.tell(*self._stream.poll())
            if self.protocol.wants_progress:
                self.do(self.protocol.progress(self._stream.heard_s))

    def end(self, *messages: str) -> None:
        """Send these and hear the rest."""
        self.receive(*messages)
        for event in self._stream.events():
            self.tell(event)
        self._stream.stop()
