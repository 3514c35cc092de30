# pyright: basic
# It takes and gives what transformers does, of any type.
"""Loading and saving, shared by both model classes."""

import os
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from kiku.checkpoint import Files, find, load, read_mimi_decoder, save_transformers
from kiku.checkpoint.loading import Loaded, as_dtype
from kiku.codec import MimiEncoder
from kiku.engine.torch import pick_device
from kiku.errors import InputError, UnsupportedConfig
from kiku.hf.attention import Checkpointing, checkpointing_with
from kiku.hf.codec import MimiModel
from kiku.hf.configuration import KyutaiSpeechToTextConfig
from kiku.hf.generation_config import GenerationConfig
from kiku.hf.pushing import PushesToHub
from kiku.hf.source import SmallFiles, known_arguments, refuse_unknown, small_files
from kiku.lm import LM
from kiku.writing import in_place_of

if TYPE_CHECKING:
    from kiku.hf.modeling import KyutaiSpeechToTextModel


class KyutaiSpeechToTextPreTrainedModel(PushesToHub, nn.Module):
    """A model that loads a checkpoint of any layout and saves one of transformers' layout."""

    config_class = KyutaiSpeechToTextConfig
    main_input_name = "input_ids"
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    # There is only one implementation of attention, PyTorch's own.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = False
    _supports_attention_backend = _can_compile_fullgraph = _can_set_experts_implementation = False
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict = _no_split_modules = None
    _tied_weights_keys = None
    all_tied_weights_keys: ClassVar[dict[str, str]] = {}
    generation_config: Any = None
    _checkpointing: Checkpointing | None = None
    _files: Files | None = None

    @property
    def trunk(self) -> "KyutaiSpeechToTextModel":
        """The part that holds the networks."""
        raise NotImplementedError

    @property
    def base_model(self) -> "KyutaiSpeechToTextModel":
        """Another name of `trunk`."""
        return self.trunk

    @classmethod
    def can_generate(cls) -> bool:
        """Whether it has `generate`."""
        return hasattr(cls, "generate")

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return False

    @classmethod
    def _from_config(cls, config: KyutaiSpeechToTextConfig, **kwargs: Any) -> Self:
        """A model with random weights; `from_config` of transformers' Auto classes calls this."""
        known_arguments(kwargs, ())
        return cls(config)

    @property
    def device(self) -> torch.device:
        """Device of the decoder."""
        return self.trunk.lm.out_norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the decoder; the codec is float32."""
        return self.trunk.lm.out_norm.weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        """The module that turns columns [B, T, 1 + K] into one vector each [B, T, D]."""
        return self.trunk.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """The text head."""
        return self.trunk.lm.text_head

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """While training, drop the activations inside each layer and recompute them for gradients.

        This takes less memory and more time.

        Args:
            gradient_checkpointing_kwargs: for `torch.utils.checkpoint`; `use_reentrant` is False
                unless it is given.
            every_n_layers: checkpoint only the first of every n layers; the others keep everything.
            offload: must be False: what is kept stays on the device.

        Raises:
            InputError: (a ValueError) `every_n_layers` is less than 1.
            UnsupportedConfig: `offload=True`.
        """
        if every_n_layers < 1:
            raise InputError(f"every_n_layers must be at least 1, not {every_n_layers}")
        if offload:
            raise UnsupportedConfig("offload=True is not supported; leave it out")
        self.trunk._checkpointing = checkpointing_with(
            {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}, every_n_layers
        )

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations of all layers again."""
        self.trunk._checkpointing = None

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """The newer name of `gradient_checkpointing_enable`."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def activation_checkpointing_disable(self) -> None:
        """The newer name of `gradient_checkpointing_disable`."""
        self.gradient_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed for the gradients."""
        return self.trunk._checkpointing is not None

    def _switch(self, name: str, asked: bool | None, default: bool = False) -> bool:
        """The value of the switch `name` in one call; None takes the config's."""
        return bool(getattr(self.trunk.config, name, default) if asked is None else asked)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many weights there are: all, or only trainable ones, or without embeddings."""
        tables = [one.weight for one in self.modules() if isinstance(one, nn.Embedding)]
        left_out = {id(one) for one in tables} if exclude_embeddings else set()
        return sum(
            p.numel()
            for p in self.parameters()
            if id(p) not in left_out and (p.requires_grad or not only_trainable)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights and, unless `return_buffers` is False, of the buffers."""
        kept = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(one.numel() * one.element_size() for one in kept)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: KyutaiSpeechToTextConfig | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a checkpoint.

        Args:
            pretrained_model_name_or_path: "demo", a folder, or a repository, of any layout that
                kiku reads.
            config: numbers to use instead of the checkpoint's.
            dtype: dtype of the decoder (the codec is always float32): a torch.dtype, its name, or
                "auto", the default: the dtype that config.json states; if it states none, that of
                the stored weights, but float32 for decoders below 100 million weights.
            torch_dtype: the older name of `dtype`.
            device_map: one device: "cpu", "cuda", 0, a torch.device, {"": ...}; "auto" is the
                fastest there is. None is the CPU.
            revision: branch, tag or commit of the repository.
            **kwargs: `cache_dir`, `token` and `local_files_only` as in transformers;
                values of the config to change, `output_loading_info=True` for `(model,
                info)`; arguments that choose among transformers' implementations change nothing.

        Raises:
            CheckpointError: it cannot be found, fetched or read.
            ConfigError: (a ValueError) a device or dtype that does not exist.
            InputError: (a ValueError) an unknown argument.
            UnsupportedConfig: several devices, or a model that kiku does not build.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        changes = known_arguments(kwargs, KyutaiSpeechToTextConfig.value_names())
        name = pretrained_model_name_or_path
        small = small_files(name, revision, kwargs)
        loaded = load(
            find(small.place, needs_vocabulary=False),
            dtype=_wanted_dtype(dtype or torch_dtype, config, small),
            device=one_device(device_map),
        )
        if config is None:
            config = KyutaiSpeechToTextConfig.from_model_config(
                loaded.config, small.config, keep=changes
            )
        with torch.device("meta"):
            model = cls(copy(config))
        model._take(loaded)
        model._take_generation_config(small)
        if wants_info:
            lists = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
            return model, {key: [] for key in lists}  # pyright: ignore[reportReturnType]
        return model

    def _take(self, loaded: Loaded) -> None:
        """Take over the loaded networks, with the config's numbers where these may differ."""
        trunk, lm, codec = self.trunk, loaded.lm, loaded.codec
        wanted = trunk.config.to_model_config()
        settled = replace(
            loaded.config,
            codec=wanted.codec,
            lm=replace(loaded.config.lm, transformer=wanted.lm.transformer),
        )
        device = lm.out_norm.weight.device
        if settled.lm != loaded.config.lm:
            lm = LM(settled.lm)
            lm.load_state_dict(loaded.lm.state_dict(), assign=True)
            lm.to(device)  # tensors that are computed, not loaded
        if settled.codec != loaded.config.codec:
            codec = MimiEncoder(settled.codec)
            codec.load_state_dict(loaded.codec.state_dict(), assign=True)
            codec.to(device)
        trunk.lm, trunk.codec_model, trunk.model_config = lm, MimiModel.around(codec), settled
        trunk.config.dtype = self.dtype
        self._files = loaded.files
        self.eval()

    def _take_generation_config(self, small: SmallFiles) -> None:
        if self.generation_config is not None:
            stored = small.json("generation_config.json")
            given = {key: value for key, value in stored.items() if value is not None}
            self.generation_config = GenerationConfig(**{**vars(self.generation_config), **given})

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        safe_serialization: bool = True,
        max_shard_size: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write config.json, generation_config.json and model.safetensors for transformers 5.23.

        The codec's decoder, which makes sound, is copied from the files the model was loaded from,
        so that nothing is lost; a model made from a config has none, and transformers then fills
        that part at random. This layout has no place for pause heads: they are not written. A
        preprocessor_config.json is written too, unless a processor was saved there before.

        Args:
            save_directory: a folder; made if needed.
            state_dict: weights to write instead of the model's, by the names of its `state_dict()`.
            safe_serialization: safetensors are the only format.
            max_shard_size: changes nothing; one file is written.
            **kwargs: only values that ask for nothing: `push_to_hub=False`, `variant=None` ...

        Raises:
            InputError: (a ValueError) an unknown argument, or other names in `state_dict`.
            CheckpointError: the folder cannot be written.
            UnsupportedConfig: another format, or a model that this layout cannot describe.
        """
        neutral = {"is_main_process": True, "save_peft_format": True, "push_to_hub": False}
        asked = {k: v for k, v in kwargs.items() if not (k in neutral and v is neutral[k])}
        refuse_unknown(asked, "save_pretrained")
        if not safe_serialization:
            raise UnsupportedConfig(
                "save_pretrained writes safetensors only; leave safe_serialization out"
            )
        folder, trunk = Path(save_directory), self.trunk
        self._save_networks(folder, self.state_dict() if state_dict is None else state_dict)
        config = KyutaiSpeechToTextConfig.from_model_config(
            trunk.model_config, trunk.config.to_dict()
        )
        config.architectures = [type(self).__name__]  # pyright: ignore[reportAttributeAccessIssue]
        config.dtype = self.dtype
        config.save_pretrained(folder)
        if self.generation_config is not None:
            self.generation_config.save_pretrained(folder)

    def _save_networks(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the weights `state` and their files, but keep what a processor has saved there."""
        lm, codec = self._parts_of(state)
        files, config = self._files, self.trunk.model_config
        decoder = None if files is None else read_mimi_decoder(files, config)
        # A file that a processor has saved there is newer than the one the model was loaded with.
        preprocessor = folder / "preprocessor_config.json"
        before = preprocessor.read_bytes() if preprocessor.is_file() else None
        save_transformers(folder, config, lm=lm, codec=codec, mimi_decoder=decoder)
        if before is not None:
            with in_place_of(preprocessor) as beside:
                beside.write_bytes(before)
        elif (folder / "processor_config.json").is_file():
            preprocessor.unlink()

    def _parts_of(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights of the decoder and of the codec, by their own names."""
        if state.keys() != (own := self.state_dict().keys()):
            odd = sorted(state.keys() ^ own)
            raise InputError(
                f"state_dict must have the names of this model's state_dict(); {len(odd)} are "
                f"missing or unknown, {odd[0]} for one"
            )
        prefix = "" if self.trunk is self else f"{self.base_model_prefix}."
        lm, codec = (
            {
                name.removeprefix(part): tensor
                for name, tensor in state.items()
                if name.startswith(part)
            }
            for part in (f"{prefix}lm.", f"{prefix}codec_model.")
        )
        return lm, codec


def _wanted_dtype(
    asked: str | torch.dtype | None, config: KyutaiSpeechToTextConfig | None, small: SmallFiles
) -> torch.dtype | None:
    """The dtype to load with; None leaves the choice to the loader."""
    if asked is None or asked == "auto":
        stored = small.config
        asked = config.dtype if config is not None else None
        asked = asked or stored.get("dtype") or stored.get("torch_dtype")
    return None if asked is None else as_dtype(asked)


def one_device(device_map: Any) -> torch.device:
    """The device that a `device_map` means.

    Raises:
        ConfigError: there is no such device.
        UnsupportedConfig: it names several.
    """
    if isinstance(device_map, dict):
        devices = sorted({str(device) for device in device_map.values()})
        if len(devices) != 1:
            raise UnsupportedConfig(f"device_map: the model lives on one device, not on {devices}")
        device_map = next(iter(device_map.values()))
    if device_map is None:
        return torch.device("cpu")
    if isinstance(device_map, str) and device_map in ("auto", "balanced", "sequential"):
        return pick_device(None)
    # A bare number is the index of a GPU.
    return pick_device(f"cuda:{device_map}" if isinstance(device_map, int) else str(device_map))
