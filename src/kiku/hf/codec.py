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
    """Of `MimiModel.encode`."""

    audio_codes: Tensor
    """[B, K, T] int64, the semantic codebooks first"""


class MimiModel(MimiEncoder):
    """The codec's encoder; the half that makes sound is not built. Always float32."""

    @classmethod
    def around(cls, codec: MimiEncoder) -> "MimiModel":
        """The same networks and weights, with these methods."""
        with torch.device("meta"):
            model = cls(codec.config)
        model.load_state_dict(codec.state_dict(), assign=True)
        # What is computed, and not loaded, follows.
        return model.to(codec.downsample.conv.weight.device).train(codec.training)

    def forward(
        self, pcm: Tensor, state: MimiState | None = None, active: Tensor | None = None
    ) -> Tensor:
        """As `MimiEncoder.forward`. transformers' makes codes, and sound of them.

        Raises:
            UnsupportedConfig: it is called as transformers' is.
        """
        if state is None or active is None:
            raise UnsupportedConfig(_ONLY_ENCODES)
        return super().forward(pcm, state, active)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Not built.

        Raises:
            UnsupportedConfig: always.
        """
        raise UnsupportedConfig(_ONLY_ENCODES)

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks at what a part of it computes."""
        names = ("_forward_hooks", "_forward_pre_hooks")
        return any(getattr(one, name) for one in self.modules() for name in names)

    @property
    def dtype(self) -> torch.dtype:
        """float32."""
        return self.downsample.conv.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.downsample.conv.weight.device

    def get_encoded_length(self, input_length: Tensor | int) -> Tensor:
        """Samples of a recording -> frames, a last one that it does not fill included."""
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
            num_quantizers: of how many codebooks, the first ones; None is all.
            encoder_past_key_values: not taken, as the next two: sound is encoded whole here.
            padding_cache: not taken.
            use_streaming: not taken.
            return_dict: False for a tuple.
            **kwargs: nothing but None.

        Returns:
            `audio_codes` [B, K, T].

        Raises:
            InputError: (a ValueError) another shape, or codebooks that there are not.
            UnsupportedConfig: a past.
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
        """[B, 1, L] -> [B, K, T], all at once."""
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
