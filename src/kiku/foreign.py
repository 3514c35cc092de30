"""Arguments named as in other packages -> an error that says what to write in kiku.

This module knows names, not what is done with the values.
"""

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from kiku.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


class Foreign(NamedTuple):
    """An argument that kiku does not have."""

    our_way: str
    """What to write instead; "{}" stands for the value."""
    neutral: Collection[Any] = (None,)
    """Values that ask for nothing special, and are accepted."""


_SPOKEN = "the models have no such input, and write the language that is spoken"
_STREAMS = "leave it out: the model hears a stream, which is not cut into windows"
_SILENCE = "leave it out: silence gives no text, and times keep it"
_GREEDY = "leave it out: the likeliest token is taken"

LOADING: Mapping[str, Foreign] = {
    "compute_type": Foreign("write dtype={}"),
    "torch_dtype": Foreign("write dtype='float16'"),
    "cpu_threads": Foreign("write threads={}"),
    "num_threads": Foreign("write threads={}"),
    "device_index": Foreign("write device='cuda:{}'", (None, 0)),
    "num_workers": Foreign("write slots={}"),
    "batch_size": Foreign("write slots={}"),
    "model_size_or_path": Foreign("write model={}"),
    "download_root": Foreign("set HF_HOME before the program starts"),
    "cache_dir": Foreign("set HF_HOME before the program starts"),
    "local_files_only": Foreign("set HF_HUB_OFFLINE=1 before the program starts", (None, False)),
    "language": Foreign(f"leave it out: {_SPOKEN}"),
}
"""Foreign arguments of `kiku.load`."""

TRANSCRIBING: Mapping[str, Foreign] = {
    "language": Foreign(f"leave it out: {_SPOKEN}"),
    "task": Foreign("leave it out: the models do not translate", (None, "transcribe")),
    "word_timestamps": Foreign("every word has its times", (None, True, False)),
    "timestamps": Foreign("every word has its times", (None, True, False)),
    "vad_filter": Foreign(_SILENCE, (None, False)),
    "vad_parameters": Foreign(_SILENCE),
    "beam_size": Foreign(_GREEDY, (None, 1)),
    "best_of": Foreign(_GREEDY, (None, 1)),
    "condition_on_previous_text": Foreign(_STREAMS),
    "chunk_length": Foreign(_STREAMS),
    "chunk_length_s": Foreign(_STREAMS),
    "initial_prompt": Foreign(
        "expect words with options=StreamOptions(decoding=DecodingOptions(hotwords=[...]))"
    ),
    "clip_timestamps": Foreign("write options=StreamOptions(start_s=..., end_s=...)"),
    "batch_size": Foreign("load the model with slots={}, and give a list of recordings"),
    "num_workers": Foreign("load the model with slots={}, and give a list of recordings"),
    "compute_type": Foreign("load the model with dtype={}"),
    "sampling_rate": Foreign("write rate={}"),
    "sample_rate": Foreign("write rate={}"),
    "sr": Foreign("write rate={}"),
    "log_progress": Foreign("write progress=callback", (None, False)),
    "verbose": Foreign("write progress=callback", (None, False)),
    "callback": Foreign("write progress={}"),
}
"""Foreign arguments of `Recognizer.transcribe`."""


def options_named(names: Collection[str], call: str) -> dict[str, Foreign]:
    """Foreign arguments for the fields of an options class, which a call does not take one by one.

    Args:
        names: names of the fields.
        call: what to write instead, with "{}" where the field goes.
    """
    return {name: Foreign(call.replace("{}", f"{name}={{}}"), ()) for name in names}


def explained(known: Mapping[str, Foreign]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that refuses foreign arguments with an InputError that says what to write.

    Neutral values are dropped. Python itself refuses names that are not in `known`.
    """

    def around(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in [name for name in kwargs if name in known]:
                value = kwargs.pop(name)
                foreign = known[name]
                if not any(value is one or value == one for one in foreign.neutral):
                    way = foreign.our_way.replace("{}", repr(value))
                    raise InputError(f"{function.__name__} has no argument {name}: {way}")
            return function(*args, **kwargs)

        return call

    return around
