"""`codec_model` answers as transformers' `MimiModel`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kiku.errors import InputError, UnsupportedConfig
from kiku.hf import KyutaiSpeechToTextConfig, KyutaiSpeechToTextForConditionalGeneration
from tests.hf.tiny_checkpoint import CONFIG, FRAME, noise

Ours = KyutaiSpeechToTextForConditionalGeneration


def sound(num_samples: int) -> torch.Tensor:
    return torch.from_numpy(noise(num_samples))[None, None]


@pytest.mark.parametrize("frames", [1, 10, 130])
def test_codes_are_theirs(theirs: Any, ours: Ours, frames: int) -> None:
    pcm = torch.cat([sound(frames * FRAME), sound(frames * FRAME).flip(-1)])
    wanted = theirs.codec_model.encode(pcm)
    given = ours.codec_model.encode(pcm, padding_mask=torch.zeros_like(pcm))
    torch.testing.assert_close(given.audio_codes, wanted.audio_codes)
    assert given.keys() == list(wanted.keys()) == ["audio_codes"]
    for count in (1, 3, 8):
        (first,) = ours.codec_model.encode(pcm, num_quantizers=count, return_dict=False)
        torch.testing.assert_close(first, wanted.audio_codes[:, :count])


def test_its_properties_are_theirs(theirs: Any, saved: Path) -> None:
    ours, there = Ours.from_pretrained(saved).codec_model, theirs.codec_model
    assert (ours.dtype, ours.device) == (there.dtype, there.device)
    for n in (1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 6401):
        given = ours.get_encoded_length(torch.tensor(n))
        assert given == there.get_encoded_length(torch.tensor(n)) == ours.get_encoded_length(n)
    assert (
        Ours(KyutaiSpeechToTextConfig(**CONFIG)).codec_model.encode(sound(FRAME)).audio_codes.shape
    )
    half = Ours.from_pretrained(saved, dtype=torch.bfloat16).codec_model
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half.encode(sound(640).double()).audio_codes, ours.encode(sound(640)).audio_codes
    )


def test_what_it_cannot_encode_is_refused(ours: Ours) -> None:
    codec = ours.codec_model
    for arguments, error, message in (
        ((sound(640)[0],), InputError, r"must be \[batch, 1, samples\]"),
        ((sound(640), None, 9), InputError, r"num_quantizers must be in 1\.\.8, not 9"),
        ((sound(640), None, 0), InputError, "not 0"),
        ((sound(640), None, None, object()), UnsupportedConfig, "takes no past"),
        ((sound(640), None, None, None, None, True), UnsupportedConfig, "takes no past"),
    ):
        with pytest.raises(error, match=message):
            codec.encode(*arguments)
    with pytest.raises(InputError, match="encode does not know colour"):
        codec.encode(sound(640), colour="red")


def test_codes_are_the_same_in_autocast(ours: Ours) -> None:
    pcm = torch.cat([sound(25 * FRAME), sound(25 * FRAME).flip(-1)])
    wanted = ours.codec_model.encode(pcm).audio_codes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours.codec_model.encode(pcm).audio_codes.equal(wanted)


@pytest.mark.parametrize("length", [1, 31, 33, 63, 10 * FRAME + 1, 10 * FRAME + 50, 11 * FRAME - 1])
def test_a_last_frame_that_is_not_filled_is_theirs(theirs: Any, ours: Ours, length: int) -> None:
    wanted = theirs.codec_model.encode(sound(length)).audio_codes
    given = ours.codec_model.encode(sound(length)).audio_codes
    assert given.equal(wanted)
    assert given.shape[-1] == ours.codec_model.get_encoded_length(length)


def test_it_only_encodes(ours: Ours) -> None:
    codec = ours.codec_model
    for call in (codec, codec.decode):
        with pytest.raises(UnsupportedConfig, match=r"only encodes: call codec_model\.encode"):
            call(sound(FRAME))


def test_a_hook_sees_the_whole_batch_at_once_and_changes_no_id(saved: Path) -> None:
    model, seen = Ours.from_pretrained(saved), []
    pcm = torch.cat([sound(20 * FRAME), sound(20 * FRAME).flip(-1)])
    mask = torch.ones(2, 20 * FRAME)
    mask[0, 12 * FRAME :] = 0
    given = {"input_values": pcm, "padding_mask": mask}
    plain = model.generate(**given)
    sampled = model.generate(**given, do_sample=True, seed=3, num_return_sequences=2)
    hook = model.codec_model.downsample.register_forward_hook(
        lambda _module, _given, out: seen.append(out)
    )
    assert model.generate(**given).equal(plain)
    (latents,) = seen
    assert latents.shape[::2] == (2, 20)
    again = model.generate(**given, do_sample=True, seed=3, num_return_sequences=2)
    assert again.equal(sampled)
    hook.remove()
    assert model.generate(**given).equal(plain)
    assert len(seen) == 2
