"""What one session is made of: its model, the options of its stream, and what follows from both."""

from dataclasses import dataclass, field

from kiku.config import ModelConfig
from kiku.options import StreamOptions
from kiku.text import Vocabulary


@dataclass(slots=True)
class SessionSetup:
    """The model and the options of one session; nothing in it changes while sound comes."""

    config: ModelConfig
    vocabulary: Vocabulary
    options: StreamOptions
    channel: int | None
    """The channel of the sound that the session transcribes; None for all channels mixed."""
    padded: bool
    """Whether the session adds silence before and after the client's sound."""
    prompted: bool
    """Whether the model read a prompt, with the silence before it, before the client's sound."""
    frame_s: float = field(init=False)
    prefix_s: float = field(init=False)
    """Seconds of silence that the session puts before the sound."""

    def __post_init__(self) -> None:
        """Compute what is read after every frame."""
        self.frame_s = 1 / self.config.frame_rate
        adds_prefix = self.padded and not self.prompted
        self.prefix_s = self.config.silence_prefix_s if adds_prefix else 0.0
