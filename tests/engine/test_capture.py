"""What is recorded as a CUDA graph could be recorded: nothing asks the host, no shape depends on
data, nothing moves. No GPU is needed to find out."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kiku.engine import SlotEngine
from kiku.engine.cuda import CudaBackend, GpuOptions, cuda_engine
from kiku.engine.gpu.attention import attend_plainly
from kiku.engine.gpu.draws import DRAW_WIDTH, draw_plainly
from kiku.engine.gpu.launches import Launches
from kiku.engine.gpu.network import Network, Remembered
from kiku.engine.gpu.pasts import Pasts
from kiku.engine.gpu.rings import RING_DTYPES, Rings
from kiku.engine.gpu.room import SIZES
from kiku.engine.gpu.trays import Buffers
from tests import tiny
from tests.engine.engines import sound

ASK_THE_HOST = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select",
    "masked_scatter", "masked_scatter_", "unique_dim", "_unique2", "unique_consecutive",
    "bincount", "histc",
    "multinomial", "lift_fresh", "lift_fresh_copy", "pin_memory", "_pin_memory", "nonzero_static",
    "repeat_interleave", "resize_", "set_", "_assert_async",
}  # fmt: skip
"""Operators that wait for the device, or bring a number from the host, or whose result has a size
that depends on what is computed."""


class Recording(TorchDispatchMode):
    """As while a CUDA graph is recorded: what would break the recording fails."""

    def __init__(self, host: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.host = {tensor.untyped_storage().data_ptr() for tensor in host}
        self.num_operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.num_operators += 1
        assert name not in ASK_THE_HOST, f"{func} cannot be recorded"
        # PyTorch first puts the number into memory of the host, and waits for its copy.
        by_number = name == "where" and func is not torch.ops.aten.where.self
        assert not by_number, f"{func} cannot be recorded"
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            kinds = {leaf.dtype for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)}
            assert not kinds & {torch.bool, torch.uint8}, f"{func} by a mask has no fixed shape"
        out = func(*args, **kwargs or {})
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in given + made:
            where = tensor.untyped_storage().data_ptr()
            assert where not in self.host, f"{func} touches memory of the host"
        return out


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x[0, 0].item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 0),
        lambda x: x.where(x > 0, 1.0),
        lambda x: torch.where(x > 0, 1.0, x),
        lambda x: x + torch.tensor(3.0),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.unique(x),
        lambda x: torch.equal(x, x),
        lambda x: x[: int(x.sum())],
    ],
)
def test_the_recording_sees_what_cannot_be_recorded(work: Callable[[Tensor], Any]) -> None:
    with (
        pytest.raises(AssertionError, match=r"recorded|shape"),
        torch.inference_mode(),
        Recording(),
    ):
        work(torch.zeros(2, 3))


def test_the_recording_sees_copies_from_and_to_the_host() -> None:
    host, device = torch.zeros(3), torch.zeros(3)
    for to, origin in ((host, device), (device, host)):
        with pytest.raises(AssertionError, match="host"), Recording([host]):
            to.copy_(origin)
    with Recording([host]) as recording:
        device.copy_(device + 1)
    assert recording.num_operators == 2


def buffers_of(launches: Launches) -> list[Buffers]:
    """What goes in, what comes out, and logits."""
    launch = next(iter(launches._launches.values()))
    return [tray.buffers for tray in (launch.given, launch.told, launch.logits)]


def memories(backend: CudaBackend) -> list[Tensor]:
    """Everything that a graph writes to or reads from, beside the weights."""
    launches: Launches = backend.launches
    slots = backend._slots
    kept = [slots.pasts.rows, *(buffers.device for buffers in buffers_of(launches))]
    for rings in (slots.codec_rings, slots.rings):
        kept += [rings.keys, rings.values, rings.key_scales, rings.value_scales]
    return [*kept, *slots.initial.values()]


def engine(kv: str = "float32") -> tuple[SlotEngine, CudaBackend]:
    made = cuda_engine(tiny.codec(), tiny.lm(), slots=9, device="cpu", options=GpuOptions(kv=kv))
    assert isinstance(made.backend, CudaBackend)
    return made, made.backend


@pytest.mark.parametrize("kv", ["float32", "bfloat16", "float8"])
def test_every_call_could_be_recorded(kv: str) -> None:
    _, backend = engine(kv)
    launches = backend.launches
    host = [buffers.host for buffers in buffers_of(launches)]
    before = [tensor.data_ptr() for tensor in memories(backend)]
    keys = [launch.key for launch in launches._launches.values()]
    assert {(kind, T) for kind, T, _ in keys} == {
        (kind, T) for kind in ("step", "encode", "read") for T in SIZES
    }
    with torch.inference_mode():
        for key in keys:
            with Recording(host) as recording:
                launches.compute(*key)
            assert recording.num_operators > 20
    assert [tensor.data_ptr() for tensor in memories(backend)] == before


def test_nothing_moves_however_slots_come_and_go() -> None:
    """Not only in a call: also when slots are opened, put back, saved and restored."""
    made, backend = engine()
    before = [tensor.data_ptr() for tensor in memories(backend)]
    weights = [weight.data_ptr() for weight in backend.launches._network.lm.parameters()]
    for _ in range(3):
        made.open()
    for count in (1, 4, 7, 16, 40):
        mark = made.mark(1)
        made.step([0, 2], sound(count + 1), [count, 1])
        made.step([1], sound(2), [2])
        made.go_back(1, mark)
        made.restore(2, made.save(0))
        made.redecode(0, 5)
        made.truncate(1, 3)
        made.close(2)
        made.open()
    assert [tensor.data_ptr() for tensor in memories(backend)] == before
    assert [w.data_ptr() for w in backend.launches._network.lm.parameters()] == weights


def pretended(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Let a module's tensors claim to be on `device`."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            new = torch.empty(weight.shape, dtype=dtype, device=device)
            part._parameters[name] = nn.Parameter(new, requires_grad=False)
        for name, buffer in list(part.named_buffers(recurse=False)):
            part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


@pytest.mark.parametrize(
    ("kv", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float8", torch.bfloat16)],
)
def test_all_of_a_call_is_on_the_device(kv: str, dtype: torch.dtype) -> None:
    """With tensors that only claim to be on a device, which is not the processor: a mixture of both
    fails, and so does what depends on numbers."""
    device = torch.device("meta")
    codec, lm = tiny.codec(), tiny.lm()
    with FakeTensorMode(), torch.inference_mode():
        pretended(codec, torch.float32, device)
        pretended(lm, dtype, device)
        inner, outer = codec.config.transformer, lm.config.transformer
        rows = torch.empty(20 + 4 * 17, 32, dtype=dtype, device=device)
        network = Network(
            codec, lm,
            pasts=Pasts(codec, 5, device),
            codec_keys=Remembered(Rings(inner, 5, 32, torch.float32, device), attend_plainly),
            keys=Remembered(Rings(outer, 5, 16, RING_DTYPES[kv], device), attend_plainly),
            table=(rows, torch.zeros(5, dtype=torch.int64, device=device)), draw=draw_plainly,
        )  # fmt: skip
        for T in (1, max(SIZES)):
            slots, start, texts, limits = torch.zeros(4, 3, dtype=torch.int64, device=device)
            pcm = torch.zeros(3, T * codec.config.frame_size, device=device)
            codes = network.hear(pcm, slots, start)
            columns = network.columns(codes, texts, limits, 3)
            draws = torch.zeros(3, DRAW_WIDTH, dtype=torch.int64, device=device)
            spoken = network.read(columns, slots, start, draws)
            assert spoken.pauses is not None
            for out in (codes, columns, spoken.logits, spoken.tokens, spoken.pauses):
                assert out.device == device
                assert out.shape[:2] == (3, T)
            with pytest.raises(Exception, match=r"devices|device"):
                network.hear(pcm.cpu(), slots, start)
        for rings in (network.keys.rings, network.codec_keys.rings):
            rings.put_first(1, rings.first(5))


def test_what_is_left_of_another_call_is_nobodys() -> None:
    """Calls share their buffers: in rows that nobody needs the bytes of another call may lie, and
    are no ids of embeddings."""
    made, backend = engine()
    for buffers in buffers_of(backend.launches):
        with torch.inference_mode():
            buffers.host.fill_(0xFF)
            buffers.device.fill_(0xFF)
    slots = [made.open()[0] for _ in range(3)]
    got = [made.step(slots, np.repeat(sound(12)[at : at + 1], 3, 0)).tokens for at in range(12)]
    alone, _ = engine()
    slot, _ = alone.open()
    expected = alone.step([slot], sound(12), [12]).tokens
    assert [tokens.tolist() for tokens in got] == [[token] * 3 for token in expected.tolist()]
