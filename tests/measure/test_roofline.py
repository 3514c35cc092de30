"""What a step reads and computes, and the time that this takes at best."""

import json
from dataclasses import replace

import pytest
import torch

from kiku.checkpoint.model_shapes import SHAPES
from kiku.codec import MimiEncoder
from kiku.config import ModelConfig
from kiku.engine.gpu.memory import Room, slot_bytes
from kiku.engine.gpu.options import GpuOptions
from kiku.engine.gpu.pasts import Pasts
from kiku.engine.gpu.rings import RING_DTYPES
from kiku.engine.gpu.room import workspace_bytes
from kiku.errors import ConfigError
from kiku.lm import LM
from kiku.measure.fits import DRIVER_BYTES, DTYPES, Fits, PlanOptions
from kiku.measure.hardware import GPUS, Hardware, cpu
from kiku.measure.limit import weight_bytes, window_bytes
from kiku.measure.roofline import (
    CALL_FRAMES,
    KV_BITS,
    codec,
    decoder,
    keys_bytes,
    most_streams,
    places,
    step_ms,
)
from tests import tiny
from tests.conftest import ROOT

ONE = SHAPES["1b"]
SLOW = Hardware("slow to read", "gpu", 1e12, 1e9, {"float32": 1e18}, "made up")
WEAK = Hardware("slow to compute", "gpu", 1e12, 1e18, {"float32": 1e9}, "made up")


def test_weights_take_the_memory_that_their_files_take() -> None:
    lines = (ROOT / "benchmarks/results/precision.jsonl").read_text().splitlines()
    sizes = [row["sizes"] for row in map(json.loads, lines) if row["what"] == "sizes"][-1]
    for shape, config in SHAPES.items():
        for dtype in ("float32", "int8", "int4"):
            of_codec = codec(config.codec, dtype).kept_bytes
            assert of_codec / 1e6 == pytest.approx(sizes[shape][dtype]["codec_mb"], rel=0.01)
            part = decoder(config.lm, dtype, "float32")
            found = sizes[shape][dtype]
            assert part.kept_bytes / 1e6 == pytest.approx(found["decoder_mb"], rel=0.001)
            assert part.weight_bytes / 1e6 == pytest.approx(found["read_a_step_mb"], rel=0.001)


def test_the_codec_computes_what_was_counted_by_hand() -> None:
    # SEANet 161 M, transformer 50 M with attention, codebooks 17 M, the projections between them.
    ((dtype, operations),) = codec(ONE.codec).ops
    assert dtype == "float32"
    assert operations / 2 == pytest.approx(0.234e9, rel=0.01)


def test_a_codec_in_8_bits_computes_as_much_and_keeps_half_of_its_keys() -> None:
    whole, small = codec(ONE.codec), codec(ONE.codec, "int8")
    assert [dtype for dtype, _ in small.ops] == ["float32", "int8"]
    assert sum(count for _, count in small.ops) == whole.ops[0][1]
    assert small.stream_bytes == whole.stream_bytes / 2
    assert codec(ONE.codec, "bfloat16") == whole


def test_every_weight_of_a_small_codec_is_used_as_often_as_its_place_says() -> None:
    config = tiny.codec_config()
    wider = replace(config, last_kernel_size=config.last_kernel_size + 1)
    channels = config.num_filters * 2 ** len(config.strides)
    more = codec(wider).ops[0][1] - codec(config).ops[0][1]
    assert more == 2 * channels * config.latent_dim * config.downsample
    longer = replace(config, kernel_size=config.kernel_size + 1)
    more = codec(longer).ops[0][1] - codec(config).ops[0][1]
    assert more == 2 * config.num_filters * config.frame_size


def test_keys_and_values_in_fewer_bits_are_smaller() -> None:
    t = ONE.lm.transformer
    whole = keys_bytes(t, t.window, "float32")
    assert whole == window_bytes(ONE.lm)
    assert keys_bytes(t, t.window, "bfloat16") == whole / 2
    scales = 2 * 4 * t.num_layers * t.num_heads * t.window
    assert keys_bytes(t, t.window, "fp8") == whole / 4 + scales


def test_a_step_reads_weights_once_and_every_streams_keys() -> None:
    part = decoder(ONE.lm, "float32", "float32")
    lone, ten = step_ms([part], SLOW, 1), step_ms([part], SLOW, 10)
    assert lone == pytest.approx((weight_bytes(ONE.lm, "float32") + window_bytes(ONE.lm)) / 1e6)
    assert ten - lone == pytest.approx(9 * window_bytes(ONE.lm) / 1e6)


def test_a_step_computes_for_every_stream() -> None:
    part = decoder(ONE.lm, "float32", "float32")
    assert step_ms([part], WEAK, 10) == pytest.approx(10 * step_ms([part], WEAK, 1))
    matrices = weight_bytes(ONE.lm, "float32") / 4
    attention = 4 * 16 * 2048 * 750  # two products of a query with each key and value
    assert step_ms([part], WEAK, 1) == pytest.approx((2 * matrices + attention) / 1e6)


def test_networks_follow_one_another() -> None:
    parts = codec(ONE.codec), decoder(ONE.lm, "int8", "bfloat16")
    gpu = GPUS["h100"]
    assert step_ms(parts, gpu, 64) == step_ms(parts[:1], gpu, 64) + step_ms(parts[1:], gpu, 64)


@pytest.mark.parametrize("ms", [0.001, 1.0, 5.0, 39.9, 80.0])
@pytest.mark.parametrize("gpu", ["l4", "h200"])
def test_one_more_stream_than_the_most_takes_too_long(gpu: str, ms: float) -> None:
    parts = codec(ONE.codec), decoder(ONE.lm, "bfloat16", "bfloat16")
    most = most_streams(parts, GPUS[gpu], ms)
    assert most == 0 or step_ms(parts, GPUS[gpu], most) <= ms
    assert step_ms(parts, GPUS[gpu], most + 1) > ms


def test_a_stream_keeps_more_than_its_window() -> None:
    t = ONE.lm.transformer
    part = decoder(ONE.lm, "int8", "fp8")
    assert part.kept_stream_bytes == keys_bytes(t, t.capacity, "fp8") > part.stream_bytes
    assert part.kept_bytes > part.weight_bytes


@pytest.mark.parametrize("shape", ["1b", "2.6b"])
@pytest.mark.parametrize("kv", ["float32", "bfloat16", "float16", "float8"])
def test_on_a_gpu_a_stream_keeps_what_a_slot_of_the_engine_does(shape: str, kv: str) -> None:
    config = SHAPES[shape]
    with torch.device("meta"):
        pasts = Pasts(MimiEncoder(config.codec), 0, torch.device("meta")).width
    for t in (config.lm.transformer, config.codec.transformer):
        assert places(t, on_gpu=False) == t.capacity
    slot = slot_bytes(config.codec, config.lm, RING_DTYPES[kv], pasts, CALL_FRAMES)
    kv = PlanOptions(kv_dtype=kv).kv_dtype or ""
    parts = (
        codec(config.codec, "bfloat16", on_gpu=True),
        decoder(config.lm, "bfloat16", kv, on_gpu=True),
    )
    kept = sum(part.kept_stream_bytes for part in parts)
    assert kept == pytest.approx(slot, rel=0.001)
    assert Fits(config, GPUS["h100"], PlanOptions("bfloat16", kv)).stream.value == kept


@pytest.mark.parametrize("card", GPUS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_engine_refuses_no_streams_that_are_planned(
    dtype: torch.dtype, shape: str, card: str
) -> None:
    config, hardware = SHAPES[shape], GPUS[card]
    assert hardware.memory_bytes is not None
    with torch.device("meta"):
        networks = MimiEncoder(config.codec), LM(config.lm).to(dtype)
        pasts = Pasts(networks[0], 0, torch.device("meta")).width
    weights = sum(one.nbytes for network in networks for one in network.state_dict().values())
    free = int(hardware.memory_bytes - DRIVER_BYTES - weights)
    for name, kv in RING_DTYPES.items():
        options = PlanOptions(str(dtype).removeprefix("torch."), name)
        found = Fits(config, hardware, options)
        planned = found.by_memory()
        assert planned is not None
        count = int(planned.value)

        def room(slots: int, kv: torch.dtype = kv) -> Room:
            width = GpuOptions().sizes[-1]
            each = slot_bytes(config.codec, config.lm, kv, pasts, width)
            workspace = workspace_bytes(config.codec, config.lm, slots, width)
            return Room(slots, each, workspace, free, kv)

        room(count).check()
        assert count > 0
        more = count + 2  # one may fit into what is rounded up in a thousand
        if found.bytes_of(more) <= options.memory_share * hardware.memory_bytes:
            with pytest.raises(ConfigError, match=f"{more} slots of"):
                room(more).check()


def test_all_types_can_be_computed_everywhere() -> None:
    config = ModelConfig(tiny.codec_config(), tiny.lm_config(), text_delay_s=0.0)
    for dtype in DTYPES:
        for kv_dtype in KV_BITS:
            parts = codec(config.codec), decoder(config.lm, dtype, kv_dtype)
            assert all(0 < step_ms(parts, one, 1) < 1 for one in (*GPUS.values(), cpu(1, 10)))
