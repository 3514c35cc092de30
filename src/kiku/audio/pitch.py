"""The pitch of voices, which shows that a sample rate cannot be right.

Sound that is declared to have three times its true rate sounds three times too high.
Knows how high people speak. Does not know how a wrong rate is reported (`checks`).

The bounds were drawn around the voices of 187 speakers, among them children, so that the right rate
of none of them is taken for a wrong one. If a person speaks higher than the highest of them, the
result is wrong, which is a known error. Because of these bounds many wrong rates are not noticed:
high voices hide a rate that is too low, deep voices a rate that is too high, and words with long
gaps have too little voice. A decision takes some ten seconds of speech. A sound that ends before
is judged at its end, with a margin, if it had some two or three seconds of speech. Music may be
taken for voices.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# Octaves above 1 Hz. The median pitch of half a minute of speech lies at 6.4 to 8.3 (85 to 320 Hz,
# children included). The lower quarter is the frequency below which a quarter of a voice's
# amplitude lies. Pitch plus half of it reaches 12.75, and 13.04 in one child whose pitch is 8.2.
_MAX_HEIGHT, _MAX_PITCH = 13.0, 8.35
_MIN_PITCH, _MAX_DARK_QUARTER = 6.2, 8.0
# Speech pauses; music seldom does.
_MAX_SHARE_VOICED = 0.95
# Mains hum and tones do not move as voices do: this many octaves lie between the 20th and the 80th
# percentile of the frames' pitches.
_MIN_SPREAD, _MAX_SPREAD = 0.08, 1.0
# The range in which a pitch is searched, and the range in which a voice's amplitude is measured.
_PITCH_HZ = (20.0, 1_100.0)
_VOICE_HZ = (75.0, 4_000.0)
FRAMES_PER_S = 10
"""Frames of 100 ms, which hold two periods of the lowest pitch."""
# Voiced frames for a decision: five seconds of vowels, which some ten seconds of speech hold.
_BLOCK_SIZE = 50
# Where the sound ends before, this many frames are enough, if they lie beyond the bounds by a
# margin in octaves: none of 3,103 recordings of 353 people, of 1.5 to 12 s, was then taken to be at
# another rate (with 8 frames and no margin one was).
_MIN_BLOCK_SIZE, _SHORT_MARGIN = 12, 0.1
# Frames below -50 dBFS, or 20 dB below the loudest recent frame, are left out. The power of this
# loudest frame is multiplied by `_FADE` every second.
_MIN_POWER, _MIN_SHARE, _FADE = 1e-5, 1e-2, 0.9
# Least autocorrelation of a voiced frame after one period, from 0 to 1.
_MIN_LIKENESS = 0.3


@dataclass(slots=True)
class Pitch:
    """Follows the pitch of voices, second by second, and shows if it is impossibly high or low."""

    loudest: float = 0.0
    """Mean square of the loudest recent frame."""
    num_frames: int = 0
    """Frames since the last decision, voiced or not."""
    voiced: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Pitch and lower quarter of each voiced frame among these, log2 Hz."""

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if not (self.loudest >= 0 and len(self.voiced) <= self.num_frames):
            raise ValueError("there are more voiced frames than frames")
        if len(self.voiced) >= _BLOCK_SIZE or any(abs(x) > 64 for row in self.voiced for x in row):
            raise ValueError("these are not the pitches of voices")

    def feed(self, second: npt.NDArray[np.float32], rate: int) -> float:
        """Take the next second, [rate] samples.

        Returns:
            The pitch in Hz if there were enough voiced frames since the last decision and no
            person speaks like this; otherwise 0.
        """
        self.voiced += self._frames(second, rate)
        self.num_frames += FRAMES_PER_S
        return self._decided(0.0) if len(self.voiced) >= _BLOCK_SIZE else 0.0

    def end(self) -> float:
        """As `feed` returns it, for a sound that ends before the first decision."""
        return self._decided(_SHORT_MARGIN) if len(self.voiced) >= _MIN_BLOCK_SIZE else 0.0

    def _decided(self, margin: float) -> float:
        """The pitch in Hz if the voiced frames since the last decision lie outside the bounds by
        more than `margin` octaves; otherwise 0."""
        block, self.voiced = np.array(self.voiced), []
        share, self.num_frames = len(block) / self.num_frames, 0
        pitch, quarter = np.median(block, axis=0)
        low, high = np.percentile(block[:, 0], [20, 80])
        if share > _MAX_SHARE_VOICED or not _MIN_SPREAD < high - low < _MAX_SPREAD:
            return 0.0
        too_high = pitch > _MAX_PITCH + margin and pitch + quarter / 2 > _MAX_HEIGHT + margin
        too_low = pitch < _MIN_PITCH - margin and quarter < _MAX_DARK_QUARTER
        return float(2.0**pitch) if too_high or too_low else 0.0

    def _frames(self, second: npt.NDArray[np.float32], rate: int) -> list[tuple[float, float]]:
        """Pitch and lower quarter of the voiced frames of a second."""
        # Averages over a few samples keep everything below 4 kHz, and make high rates cheap.
        step = max(1, rate // 8_000)
        rate_kept = rate / step
        size = int(rate_kept / FRAMES_PER_S)
        kept = second[: size * FRAMES_PER_S * step].reshape(FRAMES_PER_S, size, step)
        frames = kept.mean(axis=2, dtype=np.float64)  # [10, size]
        frames -= frames.mean(axis=1, keepdims=True)
        powers = np.square(frames).mean(axis=1)
        self.loudest = max(self.loudest * _FADE, float(powers.max()))
        frames = frames[powers > max(_MIN_POWER, self.loudest * _MIN_SHARE)]

        spectra = np.abs(np.fft.rfft(frames * np.hanning(size), 2 * size))
        hertz = np.arange(size + 1) * rate_kept / (2 * size)
        # The fourth root of the power keeps one strong harmonic from hiding the others.
        harmonics = np.where((hertz >= 15) & (hertz < 2_000), spectra, 0.0) ** 0.8
        likeness = np.fft.irfft(harmonics, 2 * size)[:, : int(rate_kept / _PITCH_HZ[0])]
        likeness /= likeness[:, :1] + 1e-12
        # Before the autocorrelation first falls below zero, it only compares neighbouring samples.
        beyond = np.logical_or.accumulate(likeness < 0, axis=1)
        likeness[~beyond] = 0.0
        likeness[:, : int(rate_kept / _PITCH_HZ[1])] = 0.0
        periods = likeness.argmax(axis=1)
        voiced = likeness.max(axis=1, initial=0.0) > _MIN_LIKENESS

        inside = (hertz >= _VOICE_HZ[0]) & (hertz < _VOICE_HZ[1])
        below = np.cumsum(spectra[voiced][:, inside], axis=1)
        quarters = hertz[inside][(below < below[:, -1:] / 4).sum(axis=1)]
        pitches = rate_kept / periods[voiced]
        return [
            (float(p), float(q)) for p, q in zip(np.log2(pitches), np.log2(quarters), strict=True)
        ]
