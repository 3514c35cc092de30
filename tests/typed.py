"""What programs write, as a type checker sees it: `make lint` checks this file, and nothing runs
it."""

from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray

from kiku import Recognizer, Recovery, StreamOptions, Transcript, Transcription, Word
from kiku.hf import KyutaiSpeechToTextForConditionalGeneration
from kiku.hf.outputs import GenerateDecoderOnlyOutput


class Decoder:
    """As torchcodec's."""

    def get_all_samples(self) -> object: ...


def transcribes(rec: Recognizer, sound: torch.Tensor, samples: NDArray[np.int16]) -> None:
    assert_type(rec.transcribe(sound, rate=16_000), Transcript)
    assert_type(rec.transcribe((16_000, sound)), Transcript)
    assert_type(rec.transcribe((16_000, samples)), Transcript)
    assert_type(rec.transcribe(Decoder()), Transcript)
    assert_type(rec.transcribe([sound, samples], rate=16_000), list[Transcript])
    assert_type(rec.transcribe([Decoder(), "talk.wav", (16_000, sound)]), list[Transcript])
    assert_type(rec.transcription(Decoder()), Transcription)
    assert_type(rec.transcriptions(path for path in ("a.wav", "b.wav")), list[Transcription])
    rec.prompt("what is said", sound, rate=16_000)


def takes_tokens(rec: Recognizer, sound: torch.Tensor) -> None:
    assert_type(rec.tokens(sound), NDArray[np.int64])
    assert_type(rec.tokens(np.zeros(3)), NDArray[np.int64])
    assert_type(rec.tokens([sound, np.zeros(3)]), list[NDArray[np.int64]])


def pushes(rec: Recognizer, sound: torch.Tensor) -> None:
    with rec.stream(StreamOptions(recovery=False)) as stream:
        stream.push(sound)
    StreamOptions(recovery=True)
    assert_type(StreamOptions().recovery_policies, Recovery | None)


def generates(model: KyutaiSpeechToTextForConditionalGeneration, inputs: dict[str, Any]) -> None:
    ids: torch.Tensor = model.generate(**inputs)  # whatever else is in the dictionary
    assert_type(model.generate(input_values=ids, max_new_tokens=3), torch.Tensor)
    assert_type(model.generate(**inputs, return_dict_in_generate=False), torch.Tensor)
    as_dict = model.generate(**inputs, return_dict_in_generate=True, output_logits=True)
    assert_type(as_dict, GenerateDecoderOnlyOutput)


def reads(transcript: Transcript) -> None:
    assert_type(transcript[0], Word)
    assert_type(transcript[1:3], tuple[Word, ...])
