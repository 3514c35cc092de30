"""How a token is picked from logits: numpy only, one object per stream.

    sampling.py   by chance
    hotwords.py   words and phrases that are expected: what their pieces gain
    language.py   a prior that keeps a stream in a language
    pieces.py     what kind of piece each token of a vocabulary is
    prompt.py     a given text, written as if the model had chosen it
    picker.py     sampling, hotwords and prior together, as `kiku.options.DecodingOptions` says

A picker remembers its stream: `save` gives its memory as plain values, and `restore` refuses
impossible values.
"""

from kiku.decoding.hotwords import HotwordBoosts, PhraseTrie
from kiku.decoding.language import language_prior
from kiku.decoding.picker import TokenPicker, plain_sampler, token_picker
from kiku.decoding.prompt import PromptPicker
from kiku.decoding.sampling import DRAW, Picker, Sampler, SamplingParams

__all__ = [
    "DRAW",
    "HotwordBoosts",
    "PhraseTrie",
    "Picker",
    "PromptPicker",
    "Sampler",
    "SamplingParams",
    "TokenPicker",
    "language_prior",
    "plain_sampler",
    "token_picker",
]
