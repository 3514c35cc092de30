# pyright: basic
# It takes and gives what transformers does, of any type.
"""transformers' config, with the known errors of published files corrected."""

import warnings
from typing import Any

from transformers import KyutaiSpeechToTextConfig as TheirConfig

from kiku.checkpoint.config_transformers import DECODER_THETA, filled
from kiku.checkpoint.corrections import CORRECTIONS, CorrectedValue, Seen
from kiku.errors import KikuError


class KyutaiSpeechToTextConfig(TheirConfig):
    """Numbers of a whole model. Without any `rope_theta` it is 100,000, as trained."""

    default_theta = DECODER_THETA

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of a config.json, corrected, and the arguments that are left."""
        values, left = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return _corrected(values, str(pretrained_model_name_or_path)), left


def _corrected(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values that a model was trained with; warns of each that the file states differently.

    The start id stays as stated: the output of `generate` begins with it, and the embeddings
    replace it by the trained one.
    """
    if values.get("model_type") != TheirConfig.model_type:
        return values
    try:
        seen = Seen("transformers", filled(values), {})
    except KikuError:  # a model that kiku does not build is not a published one
        return values
    for one in CORRECTIONS:
        in_config = one.layout == "transformers" and one.where == "config"
        if not in_config or one.key == "bos_token_id" or not one.applies(seen):
            continue
        if one.key == "audio_pad_token_id" and seen.published is None:
            continue  # the user's own model was trained with it
        used = one.value(seen)
        warnings.warn(
            f"{where}: {one.key} is {values.get(one.key, 'missing')!r}, {used!r} is used: "
            f"{one.why}",
            CorrectedValue,
            stacklevel=4,
        )
        values = {**values, one.key: used}
    return values
