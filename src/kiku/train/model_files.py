"""Write a decoder, with the codec of the model that it comes from, to a folder in either layout."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import Tensor

from kiku.checkpoint import Loaded, read_mimi_decoder, save_native, save_transformers
from kiku.config import ModelConfig
from kiku.text import Vocabulary


def write_model(
    folder: Path,
    layout: Literal["native", "transformers"],
    config: ModelConfig,
    lm: Mapping[str, Tensor],
    loaded: Loaded,
    vocabulary: Vocabulary,
    codec: Mapping[str, Tensor] | None = None,
) -> tuple[str, ...]:
    """Write a model.

    Args:
        folder: made if needed; files of the same names are replaced.
        layout: Kyutai's or transformers'.
        config: config of the model.
        lm: `state_dict` of the decoder, in the dtype to be stored.
        loaded: the model whose codec is written.
        vocabulary: written in the form that it was read in, if the layout allows that.
        codec: weights of the codec that have changed, by name.

    Returns:
        Names of tensors that the layout has no place for.

    Raises:
        CheckpointError: the folder cannot be written.
        UnsupportedConfig: the layout cannot describe the model.
    """
    codec_state = {**loaded.codec.state_dict(), **(codec or {})}
    stored = {name: value.detach().to(torch.float32) for name, value in codec_state.items()}
    decoder = read_mimi_decoder(loaded.files, loaded.config)
    with TemporaryDirectory() as made:
        if layout == "transformers" or not vocabulary.is_sentencepiece:
            path = Path(made) / "tokenizer.json"
            path.write_text(vocabulary.to_tokenizer_json(), encoding="utf-8")
        else:
            path = Path(made) / "tokenizer.model"
            path.write_bytes(vocabulary.source)
        save = save_transformers if layout == "transformers" else save_native
        save(folder, config, lm=lm, codec=stored, vocabulary=path, mimi_decoder=decoder)
    heads = [name for name in lm if name.startswith("pause_heads.")]
    return tuple(heads) if layout == "transformers" else ()
