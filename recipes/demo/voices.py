"""Synthetic voices and pronunciations: espeak-ng through its library, flite through its command."""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import soxr

from kiku.errors import ConfigError
from recipes.demo.corpus import SAMPLE_RATE, decode

ACCENTS = (
    "en",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
VARIANTS = (
    "",
    "adam",
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "antonio",
    "aunty",
    "belinda",
    "benjamin",
    "boris",
    "caleb",
    "david",
    "Denis",
    "Diogo",
    "ed",
    "edward",
    "Gene",
    "grandma",
    "grandpa",
    "Henrique",
    "Hugo",
    "iven",
    "iven2",
    "iven4",
    "Jacky",
    "john",
    "Lee",
    "marcelo",
    "Marco",
    "Mario",
    "max",
    "Michael",
    "miguel",
    "Nguyen",
    "pablo",
    "paul",
    "pedro",
    "quincy",
    "rob",
    "robert",
    "steph",
    "steph3",
    "zac",
    "anika",
    "f1",
    "f2",
    "f3",
    "klatt",
    "klatt3",
    "m1",
    "m2",
    "m3",
    "m4",
    "m6",
    "norbert",
    "sandro",
    "travis",
    "victor",
)
HELD_OUT_VARIANTS = (
    "m5",
    "m7",
    "f4",
    "f5",
    "linda",
    "Mike",
    "steph2",
    "edward2",
    "shelby",
    "klatt2",
)
"""Variants that are in no training data: the synthetic test set uses them."""
FLITE_VOICES = ("slt", "rms", "awb", "kal", "kal16")

_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7
_WORD_EVENT = 1
_SYNCHRONOUS = 2
_UTF8 = 1


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(slots=True)
class Spoken:
    """The speech of a voice.

    Attributes:
        samples: float32 [S] at 24 kHz.
        starts_s: start of each word of the text, in seconds (empty if the voice does not tell).
        phones_s: start and end of each phone, without pauses (empty if the voice does not tell).
    """

    samples: np.ndarray
    starts_s: list[float] = field(default_factory=list)
    phones_s: list[tuple[float, float]] = field(default_factory=list)


class Espeak:
    """espeak-ng's library; one per process, because the library has one voice at a time."""

    def __init__(self) -> None:
        """Load the library; raises ConfigError if it is not installed."""
        try:
            self._lib = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise ConfigError(
                f"espeak-ng cannot be loaded ({error}); install Debian's package espeak-ng"
            ) from error
        self._rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._parts: list[np.ndarray] = []
        self._starts: list[float] = []
        self._callback = _Callback(self._take)
        self._lib.espeak_SetSynthCallback(self._callback)

    def _take(
        self,
        samples: "ctypes._Pointer[ctypes.c_short]",
        count: int,
        events: "ctypes._Pointer[_Event]",
    ) -> int:
        if samples and count:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type:
            if events[index].type == _WORD_EVENT:
                self._starts.append(events[index].audio_position / 1000.0)
            index += 1
        return 0

    def say(
        self,
        text: str,
        voice: str,
        *,
        words_per_minute: int = 160,
        pitch: int = 50,
        pitch_range: int = 50,
        gap: int = 0,
    ) -> Spoken:
        """Speak `text`; `gap` is extra silence between words in units of 10 ms.

        Raises:
            ConfigError: the voice is not known.
        """
        if self._lib.espeak_SetVoiceByName(voice.encode()):
            raise ConfigError(f"espeak-ng has no voice {voice!r}; see `espeak-ng --voices=variant`")
        for name, value in (
            (_RATE, words_per_minute),
            (_PITCH, pitch),
            (_RANGE, pitch_range),
            (_WORD_GAP, gap),
        ):
            self._lib.espeak_SetParameter(name, value, 0)
        self._parts, self._starts = [], []
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        raw = np.concatenate(self._parts) if self._parts else np.zeros(1, np.int16)
        samples = soxr.resample(raw.astype(np.float32) / 32768.0, self._rate, SAMPLE_RATE)
        return Spoken(np.asarray(samples, np.float32), list(self._starts))

    def phones(self, word: str, accent: str = "en-us") -> tuple[str, ...]:
        """The phonemes of one word, without stress."""
        self._lib.espeak_SetVoiceByName(accent.encode())
        text = ctypes.c_char_p(word.encode())
        raw = self._lib.espeak_TextToPhonemes(ctypes.byref(text), _UTF8, ord("_") << 8)
        kept = (part.strip("',%=:;!|#- ") for part in (raw or b"").decode().split("_"))
        return tuple(part for part in kept if part and not part.startswith("("))


@cache
def espeak() -> Espeak:
    """The `Espeak` of this process."""
    return Espeak()


def flite(text: str, voice: str, *, stretch: float = 1.0) -> Spoken:
    """Speak `text` with a voice of flite; `stretch` above 1 is slower.

    Raises:
        ConfigError: flite is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        command = [
            "flite",
            "-voice",
            voice,
            "--setf",
            f"duration_stretch={stretch}",
            "-psdur",
            "-t",
            text,
            "-o",
            str(path),
        ]
        try:
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except FileNotFoundError as error:
            raise ConfigError("flite is not installed; install Debian's package flite") from error
        phones: list[tuple[float, float]] = []
        begun_s = 0.0
        for phone, ended in (part.rsplit(":", 1) for part in told.split()):
            if phone != "pau":
                phones.append((begun_s, float(ended)))
            begun_s = float(ended)
        return Spoken(decode(path).astype(np.float32) / 32768.0, phones_s=phones)
