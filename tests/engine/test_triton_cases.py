# pyright: reportMissingImports=false
# Triton comes with PyTorch for CUDA only.
"""The Triton kernels beside the plain form. They are run by Triton's interpreter, which has to be
asked for before Triton is imported: so `test_triton.py` runs this file in a process of its own."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("test_triton.py runs these in a process of its own", allow_module_level=True)

import triton.language as tl
from triton.runtime import interpreter

from kiku.config import TransformerConfig
from kiku.decoding import DRAW, Sampler
from kiku.engine.cuda import CudaBackend, GpuOptions, cuda_engine
from kiku.engine.gpu import attention, draws, layer_kernels, layers, ring_attention
from kiku.engine.gpu.attention import attend_fault, attend_plainly
from kiku.engine.gpu.ring_attention import attend_by_kernel, shares
from kiku.engine.gpu.rings import FLOAT8, RING_DTYPES, Rings
from kiku.engine.gpu.room import ring_capacity
from kiku.nn.rope import Rope
from kiku.nn.transformer import RMSNorm, Transformer, TransformerLayer
from tests import tiny
from tests.engine.engines import sound

CPU = torch.device("cpu")
SPARE = 4

BOUNDS = {"float32": 4e-6, "float16": 3e-5, "bfloat16": 1e-4, "float8": 2e-4}
"""Greatest difference to the plain form over the same ring, of numbers of about 1. Several queries
are multiplied in two parts of 16 bits."""

KINDS = {
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: FLOAT8,
}
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def as_a_device_rounds(array: np.ndarray, kind: Any, to: Any, _: Any = None) -> np.ndarray:
    """Numbers of one dtype as the bits of another. The interpreter's own conversion drops bits of a
    bfloat16, and is wrong where a float8 is rounded up to the next power of two."""
    kind, to = KINDS[kind], KINDS[to]
    bits = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy()).view(kind)
    found = bits.to(to).view(torch.uint8).numpy().view(UNSIGNED[to.itemsize])
    return found.reshape(array.shape)


def dot(builder: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
    """A product of bfloat16: the interpreter's own multiplies their bits as whole numbers."""
    wide = [
        as_a_device_rounds(x.data, x.dtype.scalar, tl.float32).view(np.float32)
        if x.dtype.scalar == tl.bfloat16 else x.data.astype(np.float32)
        for x in (a, b)
    ]  # fmt: skip
    return interpreter.TensorHandle(np.matmul(*wide) + d.data, d.dtype.scalar)


def with_whole_numbers(prepare: Any) -> Any:
    """Triton's interpreter of before 3.9 (seen in 3.4 and 3.6) counts in arrays of one number.
    Numpy takes these for whole numbers no longer, and up to 2.3 warns of it."""

    def prepared(tensor: Any, *scope: Any) -> None:
        prepare(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    return prepared


@pytest.fixture(autouse=True, scope="module")
def _right_numbers() -> Any:
    patch = pytest.MonkeyPatch()
    prepare = with_whole_numbers(interpreter._patch_lang_tensor)
    patch.setattr(interpreter, "_patch_lang_tensor", prepare)
    patch.setattr(interpreter, "_convert_float", as_a_device_rounds)
    patch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
    yield
    patch.undo()


def config(**changes: Any) -> TransformerConfig:
    return tiny.transformer(**{"dim": 32, "num_heads": 2, "window": 40, "num_layers": 2, **changes})


def heavy(*values: Any) -> Any:
    """The interpreter takes some 40 ms a program: what needs many is run on request."""
    return pytest.param(*values, marks=pytest.mark.heavy)


def filled(config: TransformerConfig, T: int, kv: str, slots: int = SPARE) -> Rings:
    """Rings with something in every place, the same every time."""
    torch.manual_seed(3)
    rings = Rings(config, slots, T, RING_DTYPES[kv], CPU)
    for kept in (rings.keys, rings.values):
        if kv == "float8":
            kept.random_(0, 119).add_(torch.randint_like(kept, 2) * 128)
        else:
            kept.normal_()
    for scales in (rings.key_scales, rings.value_scales):
        scales.uniform_(0.005, 0.01)
    return rings


def poisoned(rings: Rings, slots: Sequence[int], starts: Sequence[int], T: int) -> None:
    """Everything that no query of these rows may see becomes no number."""
    for slot in range(rings.num_slots + 1):
        seen = torch.zeros(rings.capacity, dtype=torch.bool)
        if slot in slots:
            start = starts[slots.index(slot)]
            oldest = max(0, start - rings.config.window + 1)
            for position in range(oldest, start + T):
                seen[position % rings.capacity] = True
        for kept in (rings.keys, rings.values):
            kept[:, slot, :, ~seen] = 0x7F if rings.dtype == FLOAT8 else torch.nan
        for scales in (rings.key_scales, rings.value_scales):
            if rings.dtype == FLOAT8:
                scales[:, slot, :, ~seen] = torch.nan


def compared(
    config: TransformerConfig, T: int, kv: str, slots: Sequence[int], starts: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> float:  # fmt: skip
    """The greatest difference of what is given back; rings must be left alike, spare rows aside."""
    torch.manual_seed(5)
    qkv = torch.randn(len(slots), T, 3, config.num_heads, config.head_dim).to(dtype)
    start, rows = torch.tensor(starts), torch.tensor(slots)
    angles = Rope(config.head_dim, config.rope_theta)(start[:, None] + torch.arange(T))
    out: list[torch.Tensor] = []
    kept: list[Rings] = []
    for attend in (attend_plainly, attend_by_kernel):
        rings = filled(config, T, kv)
        poisoned(rings, slots, starts, T)
        out.append(attend(qkv, angles, rings, 1, rows, start).float())
        kept.append(rings)
        assert out[-1].shape == (len(slots), T, config.num_heads * config.head_dim)
    for name, plain in kept[0].tensors.items():
        ours = kept[1].tensors[name][:, :SPARE]
        view = torch.uint8 if plain.dtype != torch.float32 else plain.dtype
        if view == torch.uint8:  # a float8 may be rounded the other way where the scale is
            assert (ours.view(view) != plain[:, :SPARE].view(view)).float().mean() < 0.001
        else:
            assert torch.allclose(ours, plain[:, :SPARE], rtol=1e-6, atol=1e-6, equal_nan=True)
    mine = rows != SPARE
    difference = (out[0] - out[1])[mine].abs().max()
    assert torch.isfinite(out[1][mine]).all()
    return float(difference)


STARTS = (0, 3, 39, 40, 150, 5_000_000_017)
"""Nothing heard, little, one less than a window, a window, round the ring, and beyond 32 bits."""


QUICK = {("float32", 1), ("float8", 132), ("bfloat16", 132)}


@pytest.mark.parametrize(
    ("kv", "T", "processors", "first"),
    [
        (kv, T, processors, first)
        if T in (1, 4) and (kv, processors) in QUICK and first == (processors > 1)
        else heavy(kv, T, processors, first)
        for kv in BOUNDS
        for T in (1, 2, 4, 16, 32)
        for processors in (1, 132)
        for first in (0, 1)
    ],
)
def test_it_is_the_plain_form(
    kv: str, T: int, processors: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little blocks, so that there are several; in one program, and shared out."""
    monkeypatch.setattr(ring_attention, "_NUMBERS", 256)
    monkeypatch.setattr(ring_attention, "_MULTIPROCESSORS", processors)
    slots, starts = [2, 0, 3], list(STARTS[first::2])
    if T == 1:
        slots, starts = [*slots, SPARE, SPARE], [*starts, 0, 0]
    assert compared(config(num_heads=1, dim=16), T, kv, slots, starts) < BOUNDS[kv]


@pytest.mark.parametrize(("heads", "width"), [heavy(1, 64), (3, 128), heavy(8, 16)])
def test_heads_of_any_number(heads: int, width: int) -> None:
    """In the blocks of a GPU."""
    wide = config(dim=heads * width, num_heads=heads, window=70, num_layers=2)
    for T in (1, 4):
        assert compared(wide, T, "bfloat16", [1, 0], [6, 300]) < BOUNDS["bfloat16"]


@pytest.mark.heavy
@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.data())
def test_any_shape(data: st.DataObject) -> None:
    T = data.draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    window = data.draw(st.integers(1, 60))
    kv = data.draw(st.sampled_from(sorted(BOUNDS)))
    slots = data.draw(st.permutations(range(SPARE)))[: data.draw(st.integers(1, 3))]
    starts = data.draw(st.lists(st.integers(0, 200), min_size=len(slots), max_size=len(slots)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_attention, "_NUMBERS", data.draw(st.sampled_from([256, 512, 4096])))
        patch.setattr(ring_attention, "_MULTIPROCESSORS", data.draw(st.sampled_from([1, 9, 132])))
        difference = compared(config(window=window), T, kv, list(slots), starts)
    assert difference < BOUNDS[kv]


def test_slots_that_begin_beyond_32_bits_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand slots with full windows hold more numbers than 32 bits count. Memory that is not
    touched is not taken."""
    monkeypatch.setattr(ring_attention, "_MULTIPROCESSORS", 1)
    monkeypatch.setattr(torch, "zeros", torch.empty)
    shape = config(num_heads=1, dim=16, num_layers=1)
    last = 2**31 // (ring_capacity(shape, 4) * 16) + 1
    few, many = (Rings(shape, slots, 4, FLOAT8, CPU) for slots in (1, last))
    for T in (1, 4):
        qkv, start = torch.randn(1, T, 3, 1, 16), torch.tensor([300])
        angles = Rope(16, shape.rope_theta)(start[:, None] + torch.arange(T))
        k, v = torch.randn(2, 1, 1, few.capacity, 16)
        told: list[torch.Tensor] = []
        for rings, slot in ((few, 0), (many, last)):
            slots = torch.tensor([slot])
            rings.write(0, slots, torch.arange(rings.capacity)[None], k, v)
            told.append(attend_by_kernel(qkv, angles, rings, 0, slots, start))
        assert torch.equal(*told)
        for name, kept in few.tensors.items():
            assert torch.equal(kept[:, 0], many.tensors[name][:, last])


@pytest.mark.heavy
def test_a_row_hears_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit where its keys are shared out alike."""
    monkeypatch.setattr(ring_attention, "_NUMBERS", 256)
    monkeypatch.setattr(ring_attention, "_MULTIPROCESSORS", 1)
    for T in (1, 4):
        qkv = torch.randn(3, T, 3, 2, 16)
        start, rows = torch.tensor([100, 5, 60]), torch.tensor([0, 1, 2])
        angles = Rope(16, 1e4)(start[:, None] + torch.arange(T))
        told = []
        for only in (slice(0, 3), slice(2, 3)):
            turned = (angles[0][only].contiguous(), angles[1][only].contiguous())
            rings = filled(config(), T, "float32")
            told.append(attend_by_kernel(qkv[only], turned, rings, 0, rows[only], start[only])[-1])
        assert torch.equal(*told)


@pytest.mark.heavy
def test_outputs_have_the_dtype_of_inputs() -> None:
    for dtype, bound in ((torch.bfloat16, 0.02), (torch.float16, 0.002)):
        for T in (1, 4):
            assert compared(config(), T, "bfloat16", [0, 2], [50, 7], dtype) < bound


@pytest.mark.heavy
def test_what_fewer_bits_cost() -> None:
    """Beside float32 keys throughout: the bounds that are stated for attention alone."""
    shape = config(dim=128, window=64)
    wide = filled(shape, 4, "float32")
    torch.manual_seed(1)
    qkv, start = torch.randn(2, 4, 3, 2, 64), torch.tensor([90, 20])
    angles = Rope(64, 1e4)(start[:, None] + torch.arange(4))
    rows, told = torch.tensor([0, 1]), dict[str, torch.Tensor]()
    for kv in BOUNDS:
        rings = Rings(shape, SPARE, 4, RING_DTYPES[kv], CPU)
        everyone = torch.arange(SPARE + 1)
        places = torch.arange(rings.capacity).repeat(SPARE + 1, 1)
        rings.write(0, everyone, places, wide.keys[0], wide.values[0])
        told[kv] = attend_by_kernel(qkv, angles, rings, 0, rows, start)
    exact = told.pop("float32")
    errors = {kv: float((out - exact).norm() / exact.norm()) for kv, out in told.items()}
    assert 0 < errors["float16"] < 0.001
    assert 0.0005 < errors["bfloat16"] < 0.008
    assert 0.005 < errors["float8"] < 0.08


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_and_gates_are_those_of_pytorch(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At widths that are no power of two, and of more numbers than one program takes; to one
    rounding of 16 bits."""
    monkeypatch.setattr(layers, "_NUMBERS", 16)
    transformer = Transformer(config(dim=24, ffn_dim=40)).to(dtype).requires_grad_(False)
    layer = transformer.layers[0]
    assert isinstance(layer, TransformerLayer)
    assert isinstance(layer.norm1, RMSNorm)
    assert layer.feed_forward.gated
    torch.manual_seed(2)
    layer.norm1.weight.copy_(torch.randn(24))
    layer.feed_forward.linear_in.weight.normal_()
    x = torch.randn(3, 2, 24).to(dtype)
    x[0, 0] = 0.0
    bound = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for ours, plain in (
        (layers.norm_by_kernel(layer.norm1, x), layer.norm1(x)),
        (layers.feed_forward_by_kernel(layer.feed_forward, x), layer.feed_forward(x)),
    ):
        assert ours.dtype == dtype
        assert torch.allclose(ours.float(), plain.float(), rtol=bound, atol=bound)
    if dtype != torch.float32:  # rounded twice, as in PyTorch
        layer.feed_forward.linear_out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        ours = layers.feed_forward_by_kernel(layer.feed_forward, x)
        assert (ours != layer.feed_forward(x)).float().mean() < 0.01
    assert layers.pick_between(transformer, CPU) is layers.BY_KERNEL


def test_norms_and_gates_write_their_own_rows() -> None:
    """Rows do not end where a program's numbers do."""
    kernels: Any = layer_kernels
    x, weight = torch.randn(2, 80), torch.ones(24)
    out = torch.full((3, 40), 7.0)
    kernels.gate_kernel[(2, 3)](x, out, 40, 16)
    assert (out[2] == 7).all()
    out = torch.full((3, 24), 7.0)
    kernels.norm_kernel[(2,)](x, weight, out, 24, 32, 1e-8)
    assert (out[2] == 7).all()
    assert (out[:2] != 7).all()


def test_what_is_one_launch_already_is_left_alone() -> None:
    layer = TransformerLayer(config(norm="layer", gated=False))
    x = torch.randn(1, 2, 32)
    assert torch.equal(layers.norm_by_kernel(layer.norm1, x), layer.norm1(x))
    ours = layers.feed_forward_by_kernel(layer.feed_forward, x)
    assert torch.equal(ours, layer.feed_forward(x))


@settings(deadline=None, max_examples=25, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**62 - 9),
    size=st.integers(1, 70),
    ways=st.lists(
        st.none()
        | st.tuples(st.floats(0.02, 30), st.integers(0, 80), st.floats(0.01, 1) | st.just(1.0)),
        min_size=1, max_size=4,
    ),
    coarse=st.booleans(),
)  # fmt: skip
def test_tokens_are_drawn_as_by_a_sampler(
    seed: int, size: int, ways: list[tuple[float, int, float] | None], coarse: bool
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 4, (len(ways), 2, size)).astype(np.float32)
    logits[random.random(logits.shape) < 0.1] = -np.inf
    logits[..., 0] = 1.0
    if coarse:
        logits = np.round(logits)
    rows = np.zeros(len(ways), DRAW)
    wanted: list[list[int]] = []
    for i, way in enumerate(ways):
        if way is None:
            wanted.append(logits[i].argmax(-1).tolist())
            continue
        sampler = Sampler(way[0], top_k=way[1], top_p=way[2], seed=seed + i)
        sampler.skip(7 * i)
        rows[i] = sampler.row
        wanted.append([sampler(row) for row in logits[i]])
    given_rows = torch.from_numpy(draws.draw_numbers(rows))
    x = torch.from_numpy(logits)
    assert draws.draw_by_kernel(x, x.argmax(-1), given_rows).tolist() == wanted


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
def test_the_kernel_leaves_the_likeliest_where_logits_are_no_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device finds some place among numbers that are none; the interpreter, by numpy, raises."""
    monkeypatch.setattr(np, "nanargmax", lambda x, **how: np.argmax(np.nan_to_num(x), **how))
    for wrong in (np.nan, np.inf, -np.inf):
        x = torch.full((2, 1, 9), -np.inf) if wrong == -np.inf else torch.zeros(2, 1, 9)
        x[0, 0, 4] = wrong
        x[1, 0, 7] = 1.0
        rows = np.zeros(2, DRAW)
        rows[:] = Sampler(0.01, seed=3).row
        numbers = torch.from_numpy(draws.draw_numbers(rows))
        with np.errstate(invalid="ignore"):
            got = draws.draw_by_kernel(x, torch.tensor([[2], [7]]), numbers)
        assert got.tolist() == [[2], [7]]


@pytest.mark.parametrize(
    ("row", "cut", "stays"),
    [
        ([0, 0, 0, 0], {"top_p": 0.5}, {0, 1}),
        ([2, 0, 2, 1], {"top_k": 3}, {0, 2, 3}),
        ([2, 1, 2, 1], {"top_k": 3}, {0, 1, 2, 3}),
        ([2, 0, 2, 1], {"top_k": 4}, {0, 1, 2, 3}),
    ],
)
def test_the_kernel_cuts_exactly(row: list[float], cut: dict[str, Any], stays: set[int]) -> None:
    x = torch.tensor(row, dtype=torch.float32).expand(1, 80, 4).contiguous()
    rows = np.zeros(1, DRAW)
    rows[0] = Sampler(2.0, seed=3, **cut).row
    likeliest = torch.zeros(1, 80, dtype=torch.int64)
    got = draws.draw_by_kernel(x, likeliest, torch.from_numpy(draws.draw_numbers(rows)))
    assert set(got[0].tolist()) == stays


def test_the_kernel_proves_itself_before_it_is_used() -> None:
    for size in (5, 300):
        assert draws.pick_draw("triton", size, CPU) is draws.draw_by_kernel


def test_shares_fill_a_device_and_are_no_more_than_blocks() -> None:
    assert shares(1, 16, 128, 750, 132) == 17
    assert shares(8, 16, 128, 750, 132) == 3
    assert shares(1000, 16, 128, 750, 132) == 1
    assert shares(1, 1, 128, 750, 132) == 24
    assert shares(1, 8, 64, 250, 132) == 4
    for rows in (1, 2, 5, 64):
        splits = shares(rows, 16, 128, 750, 132)
        assert (splits - 1) * 32 < 750
        assert rows * 16 * splits >= min(2 * 132, rows * 16 * 24)


@pytest.mark.heavy
def test_the_engine_says_the_same_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_attention, "_MULTIPROCESSORS", 2)
    told: list[list[list[int]]] = []
    for name in ("plain", "triton"):
        options = GpuOptions(attention=name, sizes=(1, 4), rows=(1,))
        engine = cuda_engine(tiny.codec(), tiny.lm(), slots=2, device="cpu", options=options)
        backend = engine.backend
        assert isinstance(backend, CudaBackend)
        network = backend.launches._network
        chosen = attend_plainly if name == "plain" else attend_by_kernel
        assert network.keys.attend is network.codec_keys.attend is chosen
        between = layers.PLAIN if name == "plain" else layers.BY_KERNEL
        assert network._between is between
        for _ in range(2):
            engine.open()
        both = np.stack([sound(4, 1), sound(4, 2)]).reshape(8, -1)
        told.append([engine.step([0, 1], both, [4, 4]).tokens.tolist()])
        for at in range(8):
            told[-1].append(engine.step([1], sound(8, 3)[at : at + 1]).tokens.tolist())
    assert told[0] == told[1]


def fault(rings: Rings) -> str:
    return attend_fault(rings, CPU, (1, 4), torch.float32) or ""


def test_it_proves_itself_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_attention, "_NUMBERS", 256)
    monkeypatch.setattr(ring_attention, "_MULTIPROCESSORS", 2)
    for kv in ("float32", "float8"):
        assert fault(filled(config(num_heads=1, dim=16), 4, kv)) == ""
    assert "no kernel for 2 heads of 8" in fault(filled(config(dim=16), 4, "float32"))
    assert "no kernel for 2 heads of 48" in fault(filled(config(dim=96), 4, "float32"))
    monkeypatch.setattr(attention, "_TOLERANCE", 1e-12)
    assert "are off by" in fault(filled(config(num_heads=1, dim=16), 4, "bfloat16"))
