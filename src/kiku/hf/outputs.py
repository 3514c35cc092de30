"""What `forward` and `generate` give back, and the past that `forward` can go on from."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kiku.errors import UnsupportedConfig
from kiku.lm import LM, LMState
from kiku.nn.state import nbytes


class ModelOutput:
    """Base of the outputs: by attribute, by name, or by place among what is not None."""

    def keys(self) -> list[str]:
        """Names of what is not None."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]  # pyright: ignore

    def to_tuple(self) -> tuple[Any, ...]:
        """What is not None, in order: `return_dict=False`."""
        return tuple(getattr(self, key) for key in self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


class KyutaiSpeechToTextCache:
    """The past of a batch: what the decoder remembers of the columns it has read.

    It stands where transformers has a `Cache`, and is advanced in place by `forward`. It keeps the
    window exactly (`sliding_window` positions, the current one included), however many positions
    are read at once.
    """

    def __init__(self, lm: LM, batch_size: int) -> None:
        """Nothing read yet."""
        weight = lm.out_norm.weight
        self.state: LMState = lm.init_state(batch_size, weight.device, weight.dtype)
        self.seen = 0
        self.last_position = torch.full((batch_size,), -1, device=weight.device)
        """[B] where the caller says that the last real column of each row stands."""

    @property
    def batch_size(self) -> int:
        """Rows."""
        return len(self.state.position)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns given so far, padding included; the same for every layer."""
        return self.seen

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with these rows, in this order; a row may come twice."""
        state, self.last_position = self.state, self.last_position[indices]
        state.position = state.position[indices]
        for ring in state.rings:
            ring.keys, ring.values = ring.keys[indices], ring.values[indices]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The same, as searches by beams call it."""
        self.batch_select_indices(beam_idx)

    def note(self, positions: Tensor, real: Tensor | None) -> None:
        """Columns at `positions` [B, T] were read, those that are `real` [B, T] (None: all)."""
        self.seen += positions.shape[1]
        if positions.shape[1]:
            known = positions if real is None else positions.masked_fill(~real, -1)
            last = known.max(1).values
            self.last_position = torch.where(last < 0, self.last_position, last)

    def nbytes(self) -> int:
        """Memory that the past takes."""
        return nbytes(self.state)


def own_past(given: Any) -> KyutaiSpeechToTextCache | None:
    """The past that a `past_key_values` means: kiku's own. A cache of transformers that is empty
    stands for none, and later for the past that began with it (see `begin_with`).

    Raises:
        UnsupportedConfig: another cache, with something in it.
    """
    if given is None or isinstance(given, KyutaiSpeechToTextCache):
        return given
    if (begun := getattr(given, _BEGUN, None)) is not None:
        return begun
    if hasattr(given, "get_seq_length") and not given.get_seq_length():
        return None
    raise UnsupportedConfig(
        f"past_key_values is a {type(given).__name__} that holds something; give the "
        "past_key_values that an earlier call returned, or an empty cache"
    )


def begin_with(given: Any, past: KyutaiSpeechToTextCache) -> None:
    """A caller who gave an empty cache gives it again, and means what was read since."""
    if given is not None:
        setattr(given, _BEGUN, past)


_BEGUN = "_kiku_past"


@dataclass(eq=False)
class BaseModelOutputWithPast(ModelOutput):
    """Of `KyutaiSpeechToTextModel`."""

    last_hidden_state: Tensor
    """[B, T, D] after the last norm"""
    past_key_values: KyutaiSpeechToTextCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    """num_hidden_layers + 1 of [B, T, D]: the input of each layer, and the last hidden state"""
    attentions: tuple[Tensor, ...] | None = None
    """num_hidden_layers of [B, H, T, P]: what each column takes of each column before"""


@dataclass(eq=False)
class CausalLMOutputWithPast(ModelOutput):
    """Of `KyutaiSpeechToTextForConditionalGeneration.forward`."""

    loss: Tensor | None = None
    """scalar, where labels were given"""
    logits: Tensor | None = None
    """[B, T, vocab_size], or as many positions as were kept; -inf where an id cannot be emitted"""
    past_key_values: KyutaiSpeechToTextCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    """num_hidden_layers + 1 of [B, T, D]: the input of each layer, and the last hidden state"""
    attentions: tuple[Tensor, ...] | None = None
    """num_hidden_layers of [B, H, T, P]: what each column takes of each column before"""


@dataclass(eq=False)
class GenerateDecoderOnlyOutput(ModelOutput):
    """Of `generate(..., return_dict_in_generate=True)`."""

    sequences: torch.Tensor
    """[B, 1 + N] int64, the start id first"""
    scores: tuple[Tensor, ...] | None = None
    """N of [B, vocab_size] float32: what was chosen from, after temperature, top_k and top_p"""
    logits: tuple[Tensor, ...] | None = None
    """N of [B, vocab_size] float32, as the decoder gave them"""
    attentions: tuple[tuple[Tensor, ...], ...] | None = None
    """N of num_hidden_layers of [B, H, 1, P], P as many columns as were seen"""
    hidden_states: tuple[tuple[Tensor, ...], ...] | None = None
    """N of num_hidden_layers + 1 of [B, 1, D], as `forward` gives them"""
