"""What the protocols of Deepgram's two live endpoints do alike."""

from kiku.errors import TruncatedAudio
from kiku.options import StreamOptions
from kiku.serve.protocols.deepgram_query import unsupported
from kiku.serve.protocols.deepgram_sound import SoundIntake
from kiku.serve.protocols.interface import (
    Action,
    Actions,
    Base,
    ClientRequest,
    Close,
    ModelCard,
    Refusal,
)

SLACK_S = 0.2
"""Seconds of sound that count as heard before their text is sure: they may not fill a frame yet,
and a word is decided by the frame after it."""


class DeepgramBase(Base):
    """A client of either endpoint, before its messages are understood."""

    def __init__(
        self, request: ClientRequest, model: ModelCard, options: StreamOptions, container: bool
    ) -> None:
        """For a stream of `options`, whose sound comes as a recording if `container`."""
        self._request, self._model = request, model
        self._sound = SoundIntake(options, container)
        self.initial_open = self._sound.initial_open
        self.subprotocol = "token" if "token" in request.subprotocols else None
        self._closing = False
        self._is_idle = False

    def unsupported(self, error: Exception) -> Refusal:
        """400, and why."""
        return unsupported(self._request, error)

    def quiet(self, seconds: float) -> Actions:
        """End the sound: the client gets what was heard, then why the connection ends."""
        if self._closing:
            return ()
        self._is_idle = True
        return self._close()

    def _close(self) -> list[Action]:
        self._closing = True
        return [*self._sound.rest(), Close()]

    def _was_left(self, error: Exception) -> bool:
        """Whether a recording has no end, or nothing at all, only because its client has closed."""
        return self._closing and (isinstance(error, TruncatedAudio) or not self._sound.has_come)

    def _known(self, seconds: float) -> float:
        """The time up to which the text is complete when `seconds` of sound were heard."""
        return seconds - self._model.delay_s
