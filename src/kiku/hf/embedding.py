"""The summed embeddings of a column, as a module that hooks can be put on."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from kiku.hf.columns import to_columns

if TYPE_CHECKING:
    from kiku.hf.modeling import KyutaiSpeechToTextModel


class KyutaiSpeechToTextEmbeddings(nn.Module):
    """Turns each column into one vector. It has no weights of its own: they are the decoder's."""

    def __init__(self, model: "KyutaiSpeechToTextModel") -> None:
        """Use the decoder of `model`, which may be replaced later."""
        super().__init__()
        # Bypass registration as a submodule: this module is itself a part of the model.
        vars(self)["_model"] = model

    @property
    def weight(self) -> Tensor:
        """[V, D] rows of the text ids; those of the codes are `code_embeddings` of the decoder."""
        return vars(self)["_model"].lm.text_embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T, 1 + K] ids -> [B, T, D], in the decoder's dtype.

        Raises:
            InputError: another shape, or ids out of range.
        """
        model = vars(self)["_model"]
        columns = to_columns(input_ids, model.config, model.lm)
        return model.lm.embed(columns).to(model.dtype)
