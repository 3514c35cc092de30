"""The decoder: one column in (the last text token and the codes of a frame), the next text token
out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kiku.config import LMConfig
from kiku.nn.transformer import RMSNorm, Transformer, TransformerState

LMState = TransformerState
"""The decoder remembers what its transformer remembers."""


@dataclass(frozen=True)
class LMOutput:
    """What the decoder says at each position."""

    hidden: Tensor  # [B, T, D] after the last norm
    logits: Tensor  # [B, T, V]
    pauses: Tensor | None  # [B, T, E] that the speaker has stopped; None without pause heads


class LM(nn.Module):
    """Summed embeddings of a column, a causal transformer, a text head and, where trained, pause
    heads.

    Position 0 reads the initial text id and the initial code on every codebook; position t > 0
    reads the text token of position t - 1 and the codes of frame t - 1. Position t yields text
    token t.
    """

    def __init__(self, config: LMConfig) -> None:
        """Random weights; `checkpoint` fills in real ones."""
        super().__init__()
        self.config = config
        dim = config.transformer.dim
        self.text_embedding = nn.Embedding(config.text_rows, dim)
        self.code_embeddings = nn.ModuleList(
            nn.Embedding(config.codebook_size + 1, dim) for _ in range(config.num_codebooks)
        )
        self.transformer = Transformer(config.transformer)
        self.out_norm = RMSNorm(dim, config.transformer.norm_eps)
        self.text_head = nn.Linear(dim, config.text_vocab_size, bias=False)
        self.pause_heads = nn.ModuleList(
            nn.Linear(dim, config.pause_classes, bias=False) for _ in range(config.num_pause_heads)
        )

    def init_state(
        self,
        batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype,
        *,
        remember: bool = True,
        longest: int | None = None,
    ) -> LMState:
        """Nothing read yet. With `remember=False`: for one whole sequence in one call, nothing
        kept. `longest` says how many columns a slot reads at most; None is any number."""
        return self.transformer.init_state(
            batch_size, device, dtype, remember=remember, longest=longest
        )

    def initial_column(self, batch_size: int, device: torch.device | str) -> Tensor:
        """[B, 1, 1 + K] what position 0 reads."""
        column = torch.full(
            (batch_size, 1, 1 + self.config.num_codebooks), self.config.initial_code, device=device
        )
        column[..., 0] = self.config.initial_text_id
        return column

    def embed(self, columns: Tensor) -> Tensor:
        """[B, T, 1 + K] -> [B, T, D]: the sum of the embeddings, in float32; an id of -1 adds
        nothing."""
        known = (columns >= 0).unsqueeze(-1)
        ids = columns.clamp(min=0)
        tables = [self.text_embedding, *self.code_embeddings]
        rows = torch.stack(
            [table(ids[..., k]) for k, table in enumerate(tables)], dim=2
        )  # [B, T, 1 + K, D]
        return (rows.float() * known).sum(dim=2)

    def forward(
        self,
        columns: Tensor,
        state: LMState,
        active: Tensor,
        *,
        trace: list[Tensor] | None = None,
        horizon: int | None = None,
        added: Tensor | None = None,
    ) -> LMOutput:
        """Read T columns.

        Args:
            columns: [B, T, 1 + K] int64, the text token first, then the codes; -1 adds nothing.
            state: what is remembered of each slot; advanced in place where `active`.
            active: [B] which slots read now.
            trace: see `Transformer.forward`.
            horizon: see `Transformer.forward`.
            added: [B, T, D] to the summed embeddings, where a gradient is to go beyond the codes.

        Returns:
            hidden states, logits and pause probabilities; rows of inactive slots hold no meaning.
        """
        x = self.embed(columns)
        x = (x if added is None else x + added).to(self.out_norm.weight.dtype)
        hidden = self.out_norm(self.transformer(x, state, active, trace=trace, horizon=horizon))
        pauses = self.pause_logits(hidden).softmax(-1)[..., 0] if len(self.pause_heads) else None
        return LMOutput(hidden, self.text_head(hidden), pauses)

    def pause_logits(self, hidden: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, E, classes] in float32; class 0 is the pause."""
        return torch.stack([head(hidden) for head in self.pause_heads], dim=2).float()
