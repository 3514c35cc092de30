import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from kiku.audio import AudioInput
from kiku.audio.opus import OpusDecoder, num_samples_of
from kiku.errors import AudioError
from kiku.options import AudioFormat


def packets_of(sound: np.ndarray, *, frame_ms: float = 20, layout: str = "mono") -> list[bytes]:
    """The packets of mono samples at 48 kHz."""
    encoder = AudioCodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, layout, "flt"
    encoder.options = {"frame_duration": str(frame_ms)}
    size = round(48 * frame_ms)
    packets = []
    for first in range(0, len(sound) - size + 1, size):
        part = np.repeat(sound[first : first + size], 1 if layout == "mono" else 2)
        frame = AudioFrame.from_ndarray(part.reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts = 48_000, first
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def decoded(decoder: OpusDecoder, packets: list[bytes]) -> np.ndarray:
    parts = [decoder.decode(packet) for packet in packets]
    return np.concatenate([part for part in parts if part is not None])


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("frame_ms", [2.5, 10, 20, 60])
def test_packets_become_the_sound_again(layout: str, frame_ms: float, tone) -> None:
    sound = tone(48_000, 1.0)
    packets = packets_of(sound, frame_ms=frame_ms, layout=layout)
    got = decoded(OpusDecoder(), packets)
    assert got.dtype == np.float32
    assert got.size == sum(map(num_samples_of, packets)) == len(packets) * round(48 * frame_ms)
    # The codec is late by its look-ahead: both ends are left out, and the lag does not matter.
    middle = got[12_000:36_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(24_000)))
    assert spectrum.argmax() == 220  # bins of 2 Hz
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    ("packet", "num_samples"),
    [
        (b"", 0),
        (b"\x00", 480),  # 10 ms
        (b"\x18", 2_880),  # 60 ms
        (b"\x60", 480),
        (b"\x68", 960),
        (b"\xe0", 120),  # 2.5 ms
        (b"\xf9", 1_920),  # two of 20 ms
        (b"\xfa", 1_920),
        (b"\xfb", 0),  # the count is missing
        (b"\xfb\x03", 2_880),
        (b"\xfb\x07", 0),  # 140 ms
    ],
)
def test_a_packet_says_how_long_it_is(packet: bytes, num_samples: int) -> None:
    assert num_samples_of(packet) == num_samples


def test_a_decoder_goes_on_from_the_last_packets(tone) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * 48_000).astype(np.float32)
    packets = packets_of(tone(48_000, 4.0) + noise)
    decoder = OpusDecoder()
    decoded(decoder, packets[:150])
    assert decoder.packets == packets[50:150]
    again = OpusDecoder(decoder.packets)
    assert np.array_equal(decoded(again, packets[150:]), decoded(decoder, packets[150:]))


OPUS = AudioFormat(encoding="opus")


def test_a_damaged_packet_is_silence_of_its_length_and_becomes_a_warning(tone) -> None:
    packets = packets_of(tone(48_000, 2.0))
    audio = AudioInput(48_000, OPUS)
    # Two frames of one size in an odd number of bytes: impossible.
    damaged = b"\xf9\x00\x00\x00"
    parts = [audio.feed(audio.check(packet)) for packet in packets[:40]]
    assert audio.warnings() == []
    parts.append(audio.feed(audio.check(damaged)))
    parts += [audio.feed(audio.check(packet)) for packet in packets[40:]]
    (warning,) = audio.warnings()
    assert (warning.kind, warning.time) == ("damaged", pytest.approx(0.8))
    assert "0.04 s of silence" in warning.message
    sound = np.concatenate(parts)
    assert sound.size == audio.duration * 48_000 == len(packets) * 960 + 1_920
    assert not sound[38_400:40_320].any()
    assert np.abs(sound[20_000:38_400]).max() > 0.25
    assert np.abs(sound[60_000:]).max() > 0.25


@given(st.binary(max_size=80))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_sound_or_damaged(packet: bytes) -> None:
    audio = AudioInput(48_000, OPUS)
    sound = audio.feed(audio.check(packet))
    assert np.isfinite(sound).all()
    assert sound.size == round(audio.duration * 48_000) == num_samples_of(packet)


@pytest.mark.parametrize("packets", [[b""], [b"\xfb"], [b"\xf9\x00\x00"] * 60])
def test_a_decoder_is_not_made_of_packets_that_none_keeps(packets: list[bytes]) -> None:
    with pytest.raises(AudioError, match="packets"):
        OpusDecoder(packets)
