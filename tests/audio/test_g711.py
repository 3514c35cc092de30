import av
import numpy as np
import pytest
from av.audio.codeccontext import AudioCodecContext

from kiku.audio.g711 import A_LAW_PEAK, MU_LAW_PEAK, a_law, mu_law

CODES = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize(
    ("codec", "law", "peak"),
    [("pcm_mulaw", mu_law, MU_LAW_PEAK), ("pcm_alaw", a_law, A_LAW_PEAK)],
)
def test_every_code_is_what_another_decoder_says(codec: str, law, peak: float) -> None:
    decoder = AudioCodecContext.create(codec, "r")
    decoder.sample_rate, decoder.layout = 8_000, "mono"
    frames = decoder.decode(av.Packet(CODES.tobytes()))
    want = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    got = law(CODES)
    assert got.dtype == np.float32
    assert np.array_equal(got * 32_768, want)
    assert got.max() == -got.min() == peak


def test_some_values_of_the_standard() -> None:
    # Both ends and the middle of the tables of G.711, scaled to 16 bits.
    assert (mu_law(np.array([0x00, 0x80, 0x7F, 0xFF], np.uint8)) * 32_768).tolist() == [
        -32_124,
        32_124,
        0,
        0,
    ]
    assert (a_law(np.array([0x2A, 0xAA, 0x55, 0xD5], np.uint8)) * 32_768).tolist() == [
        -32_256,
        32_256,
        -8,
        8,
    ]
