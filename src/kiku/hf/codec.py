"""`codec_model`: the codec's encoder half, with the methods of transformers' `MimiModel`."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kiku.codec import MimiEncoder, MimiState
from kiku.engine.gpu.precision import products
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.outputs import ModelOutput
from kiku.hf.source import refuse_unknown
from kiku.nn.state import all_active

_ONLY_ENCODES = (
    "codec_model only encodes: call codec_model.encode(input_values); kiku does not build the half "
    "that makes sound of codes, which MimiModel of transformers has"
)


@dataclass(eq=False)
class MimiEncoderOutput(ModelOutput):
    """Output of `MimiModel.encode`."""

    audio_codes: Tensor
    """[B, K, T] int64, the semantic codebooks first"""


class MimiModel(MimiEncoder):
    """The codec's encoder; the half that makes sound is not supported. Always float32."""

    @classmethod
    def around(cls, codec: MimiEncoder) -> "MimiModel":
        """A `MimiModel` that shares the weights of `codec`."""
        with torch.device("meta"):
            model = cls(codec.config)
        model.load_state_dict(codec.state_dict(), assign=True)
        # Tensors that are computed, not loaded, have to be moved as well.
        return model.to(codec.downsample.conv.weight.device).train(codec.training)

    def forward(
        self, pcm: Tensor, state: MimiState | None = None, active: Tensor | None = None
    ) -> Tensor:
        """As `MimiEncoder.forward`. (transformers' `forward` makes codes, and sound of them.)

        Raises:
            UnsupportedConfig: it is called like transformers' `forward`.
        """
        if state is None or active is None:
            raise UnsupportedConfig(_ONLY_ENCODES)
        return super().forward(pcm, state, active)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Not built: kiku has no decoder from codes to sound.

        Raises:
            UnsupportedConfig: always.
        """
        raise UnsupportedConfig(_ONLY_ENCODES)

    @property
    def has_hooks(self) -> bool:
        """Whether a forward hook or pre-hook is registered on any of its modules."""
        names = ("_forward_hooks", "_forward_pre_hooks")
        return any(getattr(one, name) for one in self.modules() for name in names)

    @property
    def dtype(self) -> torch.dtype:
        """float32."""
        return self.downsample.conv.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.downsample.conv.weight.device

    def get_encoded_length(self, input_length: Tensor | int) -> Tensor:
        """How many frames `input_length` samples give; an incomplete last frame counts."""
        size = self.config.frame_size
        return (torch.as_tensor(input_length) + size - 1).div(size, rounding_mode="floor")

    @torch.no_grad()
    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        num_quantizers: int | None = None,
        encoder_past_key_values: Any = None,
        padding_cache: Any = None,
        use_streaming: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MimiEncoderOutput | tuple[Tensor]:
        """Sound to codes.

        Args:
            input_values: [B, 1, L] samples in [-1, 1]. A last frame that they do not fill is padded
                inside each layer.
            padding_mask: changes nothing, as in transformers: silence has codes too.
            num_quantizers: how many codebooks to give, the first ones; None is all.
            encoder_past_key_values: not supported, like the next two: sound is encoded whole here.
            padding_cache: not supported.
            use_streaming: not supported.
            return_dict: False for a tuple.
            **kwargs: only None is allowed.

        Returns:
            `audio_codes` [B, K, T].

        Raises:
            InputError: (a ValueError) another shape, or a number of codebooks that is out of range.
            UnsupportedConfig: a past is given.
        """
        refuse_unknown(kwargs, "encode")
        if encoder_past_key_values is not None or padding_cache is not None or use_streaming:
            raise UnsupportedConfig(
                "encode takes no past: give it the whole sound, or use kiku.load(...).stream()"
            )
        self._check(input_values, num_quantizers)
        codes = self.codes_of(input_values)
        out = MimiEncoderOutput(codes[:, : num_quantizers or self.config.num_codebooks])
        return out.to_tuple() if return_dict is False else out

    @torch.no_grad()
    def codes_of(self, samples: Tensor) -> Tensor:
        """[B, 1, L] samples -> [B, K, T] codes, all at once."""
        pcm = samples.to(device=self.device, dtype=self.dtype)
        state = self.init_state(len(pcm), self.device, self.dtype)
        with products():
            return self.ended(pcm, state, all_active(len(pcm), self.device))

    def _check(self, input_values: Tensor, num_quantizers: int | None) -> None:
        config = self.config
        if input_values.dim() != 3 or input_values.shape[1] != 1:
            raise InputError(
                f"input_values must be [batch, 1, samples], not {list(input_values.shape)}"
            )
        if num_quantizers is not None and not (
            config.num_semantic <= num_quantizers <= config.num_codebooks
        ):
            raise InputError(
                f"num_quantizers must be in {config.num_semantic}..{config.num_codebooks}, "
                f"not {num_quantizers}"
            )
