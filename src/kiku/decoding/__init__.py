"""How a token is picked from logits: numpy only, one object per stream.

    sampling.py   drawing a token by chance
    hotwords.py   hotwords: how much their pieces gain
    language.py   a prior that keeps a stream in a language
    pieces.py     the kind of piece of each token of a vocabulary
    prompt.py     writing a given text as if the model had chosen it
    picker.py     sampling, hotwords and prior together, as `kiku.options.DecodingOptions` asks

A picker has a state, which belongs to its stream: `save` gives it as plain values, and `restore`
refuses impossible values.
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
