"""`load`: from the name of a model to a recognizer that is ready to transcribe."""

import logging
import os
from pathlib import Path
from typing import Any

from kiku.checkpoint import DEMO
from kiku.engine.choice import choose_engine, usable_of, usable_threads
from kiku.errors import CheckpointError, ConfigError
from kiku.foreign import LOADING, explained
from kiku.recognizer import Recognizer
from kiku.serial import whole_number

_LOG = logging.getLogger(__name__)


@explained(LOADING)
def load(
    model: str | Path = DEMO,
    *,
    engine: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    slots: int = 1,
    threads: int | None = None,
    revision: str | None = None,
) -> Recognizer:
    """Load a model and make it ready to transcribe.

    For ONNX Runtime a checkpoint is converted when it is first loaded. This takes a while, and the
    log says so; the result is kept (see `kiku.converted.convert`).

    Args:
        model: "demo" (ships with kiku), a Hugging Face repository ("kyutai/stt-1b-en_fr",
            "kyutai/stt-2.6b-en", their `-candle` and `-trfs` forms, or one of the same layout), a
            local folder, or a folder that `kiku models convert` made.
        engine: "onnx" (ONNX Runtime, on the processor), "torch" (PyTorch, on any device), "cuda"
            (the whole step as CUDA graphs, for many streams on a GPU; see docs/gpu.md), or
            "auto": PyTorch where `device` or `dtype` asks for it, or where it is installed and
            finds a CUDA or MPS device; else ONNX Runtime.
        device: PyTorch's name of a device ("cpu", "cuda", "cuda:1", "mps"); None takes the fastest
            one.
        dtype: type of the decoder's weights. ONNX Runtime: "float32", "int8", "int4", "int8_kv8",
            "int4_kv8" (with keys and values of 8 bits, given kiku-kernels); None takes int8.
            PyTorch: "float32", "bfloat16", "float16", or "auto", the checkpoint's; None takes
            "auto". With either engine, None takes float32 for decoders below 100 million weights.
            The codec stays in float32, except its large matrices with a decoder of int8 or int4.
        slots: how many streams and recordings can be open at once.
        threads: how many threads compute on the processor. None takes one for each processor that
            this process may use; a container's quota and `OMP_NUM_THREADS` count, too. A number
            above that of the processors is reduced to it, and the log says so. With PyTorch this is
            a setting of the whole process.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: the model cannot be found, fetched, read or converted.
        ConfigError: an engine, device, dtype or number is impossible, or they do not go together.
        MissingExtra: the engine is not installed.
    """
    _check_model(model)
    slots = _count("slots", slots)
    threads = None if threads is None else _count("threads", threads)
    if model == "":  # as a path, this is the current folder
        raise CheckpointError(
            'the name of the model is empty: write "demo", a folder, or a repository'
        )
    from kiku.converted import is_converted

    converted = is_converted(model)
    if converted and revision is not None:
        raise ConfigError(f"{model} is a converted model: leave revision {revision!r} out")
    chosen = choose_engine(engine, device=device, dtype=dtype, converted=converted)
    if chosen == "onnx":
        return _load_with_onnx(model, dtype, slots, threads, revision)
    if chosen == "cuda":
        return _load_with_cuda(model, device, dtype, slots, revision)
    return _load_with_torch(model, device, dtype, slots, threads, revision)


def _check_model(model: Any) -> None:
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(
            f"the model must be a name or a folder, not {model!r}: write 'demo', a repository such "
            "as 'kyutai/stt-1b-en_fr', or the path of a folder"
        )


def _count(what: str, number: Any) -> int:
    whole = whole_number(number)
    if not isinstance(whole, int) or isinstance(whole, bool):
        raise ConfigError(f"{what} must be a whole number, at least 1, not {number!r}")
    if whole < 1:
        raise ConfigError(f"{what} must be at least 1, not {whole}")
    return whole


def _load_with_onnx(
    model: str | Path, dtype: str | None, slots: int, threads: int | None, revision: str | None
) -> Recognizer:
    from kiku.converted import convert, is_converted, open_converted
    from kiku.engine.kernels import kernels
    from kiku.engine.onnx import onnx_engine

    if is_converted(model):
        opened = open_converted(model)
        if dtype not in (None, opened.precision):
            raise ConfigError(
                f"{model} is converted to {opened.precision}, not {dtype}; leave dtype out, or "
                f"convert the checkpoint to {dtype}"
            )
    else:
        opened = convert(model, precision=dtype, revision=revision)
    if opened.precision.endswith("_kv8") and kernels().library is None:
        _LOG.warning(
            "kiku-kernels is not used here, so keys and values have 32 bits, not 8: each stream "
            "takes more memory (kiku doctor says why)"
        )
    engine = onnx_engine(
        opened.folder, opened.config, slots=slots, threads=threads, precision=opened.precision
    )
    return Recognizer(engine, opened.config, opened.vocabulary, name=str(model))


def _load_with_torch(
    model: str | Path,
    device: str | None,
    dtype: str | None,
    slots: int,
    threads: int | None,
    revision: str | None,
) -> Recognizer:
    from kiku.checkpoint import load as load_checkpoint
    from kiku.engine.torch import pick_device, torch_engine, use_at_most, use_threads

    place = str(pick_device(device))  # before gigabytes are fetched for a device that is not there
    if threads is not None:
        use_threads(usable_of(threads))
    else:
        use_at_most(usable_threads())
    loaded = load_checkpoint(model, dtype=dtype, revision=revision)
    config = loaded.config
    engine = torch_engine(
        loaded.codec, loaded.lm, slots=slots, device=place,
        pad_id=config.pad_id, word_start_id=config.word_start_id,
    )  # fmt: skip
    return Recognizer(engine, config, loaded.vocabulary, name=str(model))


def _load_with_cuda(
    model: str | Path, device: str | None, dtype: str | None, slots: int, revision: str | None
) -> Recognizer:
    from kiku.checkpoint import load as load_checkpoint
    from kiku.engine.cuda import GpuOptions, cuda_engine, pick_gpu

    place = str(pick_gpu(device))  # before gigabytes are fetched for a device that is not there
    loaded = load_checkpoint(model, dtype=dtype, revision=revision)
    config = loaded.config
    engine = cuda_engine(
        loaded.codec, loaded.lm, slots=slots, device=place, word_start_id=config.word_start_id,
        options=GpuOptions(guess=config.pad_id),
    )  # fmt: skip
    return Recognizer(engine, config, loaded.vocabulary, name=str(model))
