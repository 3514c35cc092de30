"""Every error that kiku raises on purpose.

    KikuError
    ├── ConfigError                 an impossible number or name in a config
    │   └── UnsupportedConfig       valid upstream, but kiku does not build it
    ├── InputError                  an impossible argument of a call
    ├── MissingExtra                an optional package is needed; the message says how to get it
    ├── CheckpointError             files not found, damaged, or not what they should be
    ├── AudioError                  sound that cannot be read
    │   ├── TruncatedAudio          the sound ends too early; all before was delivered
    │   └── FrameError              not a whole number of frames
    ├── VocabularyError             tokens or text that a vocabulary cannot hold
    ├── StreamError
    │   ├── StreamClosed            pushed or finalized after close
    │   ├── QueueFull               sound came faster than it is processed
    │   └── NoFreeSlot              all slots are held
    ├── OutputError                 a result cannot be written where it should go
    └── TrainingError               data or a recipe that cannot be trained on

A message says what was wrong, what was seen and what to do.
"""

from typing import Any, Self


class KikuError(Exception):
    """Base of every error that kiku raises on purpose."""


class ConfigError(KikuError, ValueError):
    """An impossible number or name in a config."""


class UnsupportedConfig(ConfigError):
    """Valid upstream, but kiku does not build it."""


class InputError(KikuError, ValueError):
    """An argument of a call that is impossible, or does not fit the others."""


class MissingExtra(KikuError, ImportError):
    """An optional package is needed and is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """`what` needs the packages of the extra `extra`: `MissingExtra("the torch engine",
        "torch")`."""
        super().__init__(
            f"{what} needs an extra that is not installed: run  pip install '.[{extra}]'  where "
            "kiku's repository was cloned"
        )
        self.what, self.extra = what, extra

    def __reduce__(self) -> tuple[type[Self], tuple[str, str], dict[str, Any]]:
        # Pickle and copy call a class with `args`, which hold the message alone.
        return type(self), (self.what, self.extra), self.__dict__


class CheckpointError(KikuError):
    """The files of a checkpoint are missing, damaged, or not what they should be."""


class AudioError(KikuError):
    """Sound that cannot be read."""


class TruncatedAudio(AudioError):
    """The sound ends in the middle. It is raised after all sound that could be read was
    delivered."""


class FrameError(AudioError, ValueError):
    """Samples that are not a whole number of frames."""


class VocabularyError(KikuError, ValueError):
    """Tokens or text that a vocabulary cannot hold, or a vocabulary file that is damaged."""


class StreamError(KikuError):
    """A stream was used in a way that is not allowed."""


class StreamClosed(StreamError):
    """Sound was pushed, or finalize was called, after `close()`."""


class QueueFull(StreamError):
    """More sound waits to be processed than is allowed; the last push was not taken."""


class NoFreeSlot(StreamError):
    """All slots of the engine are held by other streams."""


class OutputError(KikuError):
    """A result cannot be written where it should go."""


class TrainingError(KikuError):
    """Data or a recipe that cannot be trained on."""
