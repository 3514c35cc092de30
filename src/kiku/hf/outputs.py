"""What `forward` and `generate` return, and the past from which `forward` can continue."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from kiku.errors import UnsupportedConfig
from kiku.lm import LM, LMState
from kiku.nn.state import nbytes


class ModelOutput:
    """Base of the outputs: a value is read by attribute, name, or index among those not None."""

    def keys(self) -> list[str]:
        """Names of the values that are not None."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]  # pyright: ignore

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are not None, in order: the output for `return_dict=False`."""
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

    It takes the place of transformers' `Cache`; `forward` advances it in place. It keeps the window
    exactly (`sliding_window` positions, the current one included), however many positions are read
    at once.
    """

    def __init__(self, lm: LM, batch_size: int) -> None:
        """Begin with nothing read."""
        weight = lm.out_norm.weight
        self.state: LMState = lm.init_state(batch_size, weight.device, weight.dtype)
        self.seen = 0
        self.last_position = torch.full((batch_size,), -1, device=weight.device)
        """[B] position of the last real column of each row, as the caller counts; -1 for none."""

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return len(self.state.position)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns given so far, padding included; the same for every layer."""
        return self.seen

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows, in this order; a row may occur twice."""
        state, self.last_position = self.state, self.last_position[indices]
        state.position = state.position[indices]
        for ring in state.rings:
            ring.keys, ring.values = ring.keys[indices], ring.values[indices]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Another name of `batch_select_indices`, which beam search calls."""
        self.batch_select_indices(beam_idx)

    def note(self, positions: Tensor, real: Tensor | None) -> None:
        """Record that columns at `positions` [B, T] were read; `real` [B, T] are no padding.

        If `real` is None, none of them is padding.
        """
        self.seen += positions.shape[1]
        if positions.shape[1]:
            known = positions if real is None else positions.masked_fill(~real, -1)
            last = known.max(1).values
            self.last_position = torch.where(last < 0, self.last_position, last)

    def nbytes(self) -> int:
        """Bytes that the past takes."""
        return nbytes(self.state)


def own_past(given: Any) -> KyutaiSpeechToTextCache | None:
    """The past that the argument `past_key_values` stands for.

    kiku's own cache stands for itself. An empty cache of transformers stands for no past at first,
    and later for the past that began with it (see `begin_with`).

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
    """Note `past` on the empty cache `given`: a caller who passes that again means this past."""
    if given is not None:
        setattr(given, _BEGUN, past)


_BEGUN = "_kiku_past"


@dataclass(eq=False)
class BaseModelOutputWithPast(ModelOutput):
    """Output of `KyutaiSpeechToTextModel`."""

    last_hidden_state: Tensor
    """[B, T, D] after the last norm"""
    past_key_values: KyutaiSpeechToTextCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    """num_hidden_layers + 1 of [B, T, D]: the input of each layer, and the last hidden state"""
    attentions: tuple[Tensor, ...] | None = None
    """num_hidden_layers of [B, H, T, P]: the weight that each column gives to each one before"""


@dataclass(eq=False)
class CausalLMOutputWithPast(ModelOutput):
    """Output of `KyutaiSpeechToTextForConditionalGeneration.forward`."""

    loss: Tensor | None = None
    """scalar, where labels were given"""
    logits: Tensor | None = None
    """[B, T, vocab_size], or as many positions as were kept; -inf where an id cannot be emitted"""
    past_key_values: KyutaiSpeechToTextCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    """num_hidden_layers + 1 of [B, T, D]: the input of each layer, and the last hidden state"""
    attentions: tuple[Tensor, ...] | None = None
    """num_hidden_layers of [B, H, T, P]: the weight that each column gives to each one before"""


@dataclass(eq=False)
class GenerateDecoderOnlyOutput(ModelOutput):
    """Output of `generate(..., return_dict_in_generate=True)`."""

    sequences: torch.Tensor
    """[B, 1 + N] int64, the start id first"""
    scores: tuple[Tensor, ...] | None = None
    """N of [B, vocab_size] float32: the scores after temperature, top_k and top_p"""
    logits: tuple[Tensor, ...] | None = None
    """N of [B, vocab_size] float32, as the decoder gave them"""
    attentions: tuple[tuple[Tensor, ...], ...] | None = None
    """N of num_hidden_layers of [B, H, 1, P]; P is the number of columns seen"""
    hidden_states: tuple[tuple[Tensor, ...], ...] | None = None
    """N of num_hidden_layers + 1 of [B, 1, D], as `forward` gives them"""
