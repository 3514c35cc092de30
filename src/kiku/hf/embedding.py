"""The summed embeddings of a column, as a module that hooks can be put on."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from kiku.hf.columns import to_columns

if TYPE_CHECKING:
    from kiku.hf.modeling import KyutaiSpeechToTextModel


class KyutaiSpeechToTextEmbeddings(nn.Module):
    """Columns to one vector each. It has no weights of its own: those are the decoder's."""

    def __init__(self, model: "KyutaiSpeechToTextModel") -> None:
        """Of a model, whose decoder may be another one later."""
        super().__init__()
        # Not a part of this module: the model is what it belongs to.
        vars(self)["_model"] = model

    @property
    def weight(self) -> Tensor:
        """[V, D] of the text ids; those of the codes are `code_embeddings` of the decoder."""
        return vars(self)["_model"].lm.text_embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T, 1 + K] ids -> [B, T, D], in the decoder's dtype.

        Raises:
            InputError: another shape, or ids out of range.
        """
        model = vars(self)["_model"]
        columns = to_columns(input_ids, model.config, model.lm)
        return model.lm.embed(columns).to(model.dtype)
