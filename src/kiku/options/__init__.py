"""The options of a stream: the same classes for Python, command line and server.

All are frozen and check themselves; `from_dict` reads them from JSON and refuses names that it does
not know. They only hold values; `audio`, `decoding`, `text` and `stream` act on them.

    base.py          plain values and back; checks of single values
    audio_format.py  AudioFormat: how the sound is written that a client pushes
    decoding.py      DecodingOptions, Hotword: how text is picked
    turns.py         TurnPolicy: when a pause is the end of a turn
    stream.py        StreamOptions, which holds the others; Recovery, Prompt
    arguments.py     arguments of calls, checked
"""

from kiku.options.arguments import (
    callback,
    checked_decoding_options,
    checked_stream_options,
    timeout_s,
)
from kiku.options.audio_format import (
    MAX_CHANNELS,
    MAX_INPUT_RATE,
    MIN_INPUT_RATE,
    AudioFormat,
    Encoding,
)
from kiku.options.decoding import (
    MAX_BOOST,
    MAX_HOTWORD_CHARACTERS,
    MAX_HOTWORDS,
    DecodingOptions,
    Hotword,
)
from kiku.options.stream import (
    MAX_RECORDING_S,
    Channel,
    Prompt,
    Recovery,
    RecoveryPolicy,
    StreamOptions,
    WhenFull,
)
from kiku.options.turns import Eagerness, TurnPolicy

__all__ = [
    "MAX_BOOST",
    "MAX_CHANNELS",
    "MAX_HOTWORDS",
    "MAX_HOTWORD_CHARACTERS",
    "MAX_INPUT_RATE",
    "MAX_RECORDING_S",
    "MIN_INPUT_RATE",
    "AudioFormat",
    "Channel",
    "DecodingOptions",
    "Eagerness",
    "Encoding",
    "Hotword",
    "Prompt",
    "Recovery",
    "RecoveryPolicy",
    "StreamOptions",
    "TurnPolicy",
    "WhenFull",
    "callback",
    "checked_decoding_options",
    "checked_stream_options",
    "timeout_s",
]
