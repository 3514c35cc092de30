"""Augmentation: change the speed, room, telephone, codec, noise and loudness of recordings.

All random numbers come from a generator that is passed in: the same seed gives the same sound.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kiku.audio import ENDINGS, Resampler, StreamWarning, read_chunks
from kiku.audio.encode import Codec, can_encode, encodable_rate, encoded, lateness
from kiku.errors import TrainingError
from kiku.serial import from_plain
from kiku.train.sounds import Samples, SpokenPiece, join_pieces

Rng = np.random.Generator
Range = tuple[float, float]

_TELEPHONE_RATE = 8000
_RATIO_RATE = 96_000
_MU = 255.0
_FULL = 0.99


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How copies of a piece may be changed. Each piece is also kept as it is."""

    copies: int = 1
    """Changed copies of each row, in addition to the row itself."""
    speed: Range = (0.9, 1.1)
    """Factor of the speed; the pitch changes with it."""
    gain_db: Range = (-12.0, 6.0)
    noise: str = ""
    """A folder of noises; without one the noise is white."""
    snr_db: Range = (5.0, 40.0)
    """Decibels of speech over noise."""
    noisy: float = 0.5
    """Share of copies that get noise, 0 to 1; so are `in_rooms`, `telephone`, `coded`."""
    rooms: str = ""
    """A folder of impulse responses of rooms; without one there are no rooms."""
    in_rooms: float = 0.3
    telephone: float = 0.1
    """Share of copies that pass through 8 kHz and mu-law."""
    coded: float = 0.1
    """Share of copies that pass through one of `codecs`."""
    codecs: tuple[Codec, ...] = ("opus", "mp3", "aac", "amr")
    """AMR is that of mobile telephones, 8 kHz."""
    kbit_s: Range = (8.0, 32.0)
    """Thousand bits a second; a codec takes the nearest that it has (AMR 4.75 to 12.2)."""
    join: int = 1
    """How many rows are joined one after the other at most."""
    silence_s: Range = (0.0, 0.0)
    """Seconds of silence before each row, and after the last."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a number is out of its range; it is named.
        """
        limits: dict[str, Range] = {
            "copies": (0, 1000), "join": (1, 100), "noisy": (0, 1), "in_rooms": (0, 1),
            "telephone": (0, 1), "coded": (0, 1), "kbit_s": (4, 320), "speed": (0.25, 4),
            "gain_db": (-60, 60), "snr_db": (-20, 100), "silence_s": (0, 60),
        }  # fmt: skip
        for name, (least, most) in limits.items():
            value: float | Range = getattr(self, name)
            low, high = value if isinstance(value, tuple) else (value, value)
            if not least <= low <= high <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value}")
        if self.coded and not self.codecs:
            raise ValueError("codecs is empty: name some, or set coded = 0")


def read_augmentation(path: Path) -> Augmentation:
    """Read a TOML file; its folders are relative to the file's folder, and ~ is the home folder.

    Raises:
        ConfigError: a key is unknown, or a number is invalid.
        TrainingError: the file cannot be read.
    """
    from kiku.train.settings import beside_file, read_toml

    found = from_plain(Augmentation, read_toml(path), what=str(path), defaults=True, lenient=True)
    noise, rooms = (name and beside_file(path, name) for name in (found.noise, found.rooms))
    return replace(found, noise=noise, rooms=rooms)


class Augmenter:
    """Changes pieces; holds the noises and rooms."""

    def __init__(self, how: Augmentation, rate: int) -> None:
        """Read the noises and rooms.

        Raises:
            TrainingError: a folder is missing or holds no recordings; a codec is not built in.
            AudioError: one of them cannot be read.
        """
        self.how, self.rate = how, rate
        self._noises = _recordings(how.noise, rate)
        missing = [one for one in how.codecs if how.coded and not can_encode(one)]
        if missing:
            raise TrainingError(
                f"this build of FFmpeg cannot encode {', '.join(missing)}: name other codecs"
            )
        self._rooms = [_direct_first(room) for room in _recordings(how.rooms, rate)]

    def changed(self, piece: SpokenPiece, rng: Rng) -> SpokenPiece:
        """One row at another speed; `surrounded` changes its room, noise and loudness later."""
        speed = float(rng.uniform(*self.how.speed))
        samples = change_speed(piece.samples, self.rate, speed)
        words = tuple(word.moved(0.0, speed) for word in piece.words)
        return replace(piece, samples=samples, words=words)

    def joined(self, pieces: Sequence[SpokenPiece], rng: Rng) -> SpokenPiece:
        """One piece of several, with silence before, between and after them."""
        gaps = [int(rng.uniform(*self.how.silence_s) * self.rate) for _ in range(len(pieces) + 1)]
        return join_pieces(pieces, gaps, self.rate)

    def surrounded(self, piece: SpokenPiece, rng: Rng) -> SpokenPiece:
        """The piece in a room, over a telephone, with noise, through a codec, louder or softer."""
        samples = piece.samples
        level = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
        if self._rooms and rng.random() < self.how.in_rooms:
            samples = in_room(samples, self._rooms[rng.integers(len(self._rooms))])
        if rng.random() < self.how.telephone:
            samples = over_telephone(samples, self.rate)
        if rng.random() < self.how.noisy:
            loudness = max(level, 1e-3) * 10 ** (-rng.uniform(*self.how.snr_db) / 20)
            noise = self._noise(len(samples), rng) * np.float32(loudness)
            samples = np.asarray(samples + noise, np.float32)
        if self.how.coded and rng.random() < self.how.coded:
            codec = self.how.codecs[rng.integers(len(self.how.codecs))]
            samples = over_codec(samples, self.rate, codec, rng.uniform(*self.how.kbit_s))
        gain = 10 ** (rng.uniform(*self.how.gain_db) / 20)
        peak = float(np.abs(samples).max(initial=0.0))
        gain = min(gain, _FULL / max(peak, 1e-6))
        return replace(piece, samples=(samples * np.float32(gain)).astype(np.float32))

    def _noise(self, length: int, rng: Rng) -> Samples:
        """Noise with a root mean square of 1."""
        if not self._noises:
            return rng.standard_normal(length, dtype=np.float32)
        source = self._noises[rng.integers(len(self._noises))]
        at = int(rng.integers(len(source)))
        noise = np.resize(np.roll(source, -at), length)
        return noise / np.float32(np.sqrt(np.mean(noise**2)) + 1e-6)


def change_speed(samples: Samples, rate: int, speed: float) -> Samples:
    """The sound played `speed` times as fast; the pitch rises with it."""
    # Only the ratio counts; it is scaled up because low rates cannot be resampled.
    scale = max(1, _RATIO_RATE // rate)
    resampler = Resampler(round(rate * scale * speed), rate * scale)
    return np.concatenate([resampler.push(samples), resampler.end()])


def in_room(samples: Samples, room: Samples) -> Samples:
    """The sound in a room with this impulse response, as loud and as long as before."""
    size = 1 << (len(samples) + len(room) - 1).bit_length()
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(room, size)
    reverberant = np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)
    before, after = (float(np.sqrt(np.mean(one**2))) + 1e-9 for one in (samples, reverberant))
    return reverberant * np.float32(before / after)


def over_telephone(samples: Samples, rate: int) -> Samples:
    """The sound after 8 kHz and eight bits of mu-law."""
    narrow = change_speed(samples, _TELEPHONE_RATE, rate / _TELEPHONE_RATE)
    loud = np.log1p(_MU * np.abs(np.clip(narrow, -1, 1))) / np.log1p(_MU)
    coarse: Samples = np.rint(loud * 127) / np.float32(127)
    back = np.sign(narrow) * np.expm1(coarse * np.log1p(_MU)) / _MU
    wide = change_speed(back.astype(np.float32), rate, _TELEPHONE_RATE / rate)
    return _of_length(wide, len(samples))


def over_codec(samples: Samples, rate: int, codec: Codec, kbit_s: float) -> Samples:
    """What a codec leaves of the sound, with `kbit_s` thousand bits a second; as long as before."""
    own = encodable_rate(codec, rate)
    # A file of a few samples would be empty.
    long = np.pad(samples, (0, max(0, rate // 10 - len(samples))))
    file = encoded(change_speed(long, own, rate / own), own, codec, round(kbit_s * 1000))
    found = np.concatenate(list(read_chunks(io.BytesIO(file), rate, on_warning=_ignore)))
    return _of_length(found[round(lateness(codec) * rate / own) :], len(samples))


def _ignore(_warning: StreamWarning) -> None:
    """What a codec does to sound is meant here."""


def _of_length(samples: Samples, length: int) -> Samples:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _direct_first(room: Samples) -> Samples:
    """The impulse response from the direct sound on: a delay before it would move the words."""
    return room[int(np.abs(room).argmax()) :]


def _recordings(folder: str, rate: int) -> list[Samples]:
    if not folder:
        return []
    # Other files in the folder, such as a licence or a list, are skipped.
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise TrainingError(
            f"{folder} contains no recordings: noise and rooms must name folders of recordings"
        )
    return [np.concatenate(list(read_chunks(path, rate))) for path in paths]
