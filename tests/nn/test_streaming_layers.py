"""The laws, on each layer that remembers, and what a window, a ring and a rewind promise."""

import pytest
import torch
from torch import Tensor, nn

from kiku.config import REWIND_FRAMES
from kiku.nn.attention import visible_places
from kiku.nn.conv import CausalConv1d
from kiku.nn.state import all_active, leaves, mark, nbytes, restore_slot, rewind, save_slot
from kiku.nn.transformer import Transformer, TransformerState
from tests import laws, tiny


def filled(state: object) -> object:
    """Unwritten ring memory holds garbage, so that nobody reads it politely."""
    for leaf in leaves(state):
        if leaf.is_floating_point() and leaf.dim() == 4:
            leaf.fill_(laws.GARBAGE)
    return state


def as_law(module: nn.Module, unit: int = 1) -> laws.Remembering:
    """Channels-first modules as they are; the transformer with its axes turned."""
    if isinstance(module, Transformer):

        def run(x: Tensor, state: TransformerState, active: Tensor) -> Tensor:
            return module(x.transpose(1, 2), state, active).transpose(1, 2)
    else:
        run = module
    return laws.Remembering(
        lambda b: filled(module.init_state(b, "cpu", torch.float32)),
        run,
        unit,  # pyright: ignore
    )


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(7, 1, 1), (8, 4, 1), (3, 1, 2), (1, 1, 1), (4, 2, 1)]
)
def test_laws_hold_for_convolutions(padding: str, kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv = CausalConv1d(3, 5, kernel, stride=stride, dilation=dilation, padding=padding)  # pyright: ignore
    laws.check_all(as_law(conv, stride), torch.randn(3, 3, 12 * stride), conv)


def test_laws_hold_for_a_transformer_past_its_window() -> None:
    torch.manual_seed(0)
    module = Transformer(tiny.transformer(window=5)).eval()
    laws.check_all(as_law(module), torch.randn(3, 32, 24), module)


def test_a_replicating_convolution_pads_with_its_first_input() -> None:
    torch.manual_seed(0)
    conv = CausalConv1d(2, 2, 4, stride=2, padding="replicate", bias=False)
    x = torch.randn(1, 2, 6)
    with torch.no_grad():
        expected = conv.conv(torch.cat([x[..., :1], x[..., :1], x], dim=-1))
        got = conv(x, conv.init_state(1, "cpu", torch.float32), all_active(1))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("length", [40, 300])
def test_the_ring_gives_what_a_masked_whole_sequence_gives(length: int) -> None:
    """300 positions: several pieces of one call, and the ring (window 10) written over and over."""
    torch.manual_seed(1)
    module = Transformer(tiny.transformer()).eval()
    x = torch.randn(2, length, 32)
    with torch.inference_mode():
        ringed = module(x, filled(module.init_state(2, "cpu", torch.float32)), all_active(2))
        whole = module(x, module.init_state(2, "cpu", torch.float32, remember=False), all_active(2))
    torch.testing.assert_close(ringed, whole, atol=1e-5, rtol=1e-5)


def test_a_query_sees_exactly_its_window() -> None:
    capacity, window = 24, 7
    for past in (0, 3, 23, 24, 100):
        for new in (1, 5):
            seen = visible_places(
                torch.tensor([past]), new, all_active(1), capacity, window, capacity
            )[0]
            for t in range(new):
                query = past + t
                expected = {p % capacity for p in range(max(0, query - window + 1), query + 1)}
                assert set(seen[t].nonzero().flatten().tolist()) == expected


def test_a_slot_is_rewound_exactly_over_64_frames() -> None:
    torch.manual_seed(2)
    module = Transformer(tiny.transformer()).eval()
    state = filled(module.init_state(2, "cpu", torch.float32))
    both = all_active(2)
    x, y = torch.randn(2, 50, 32), torch.randn(2, 20, 32)
    detour = torch.randn(2, REWIND_FRAMES, 32)
    with torch.inference_mode():
        module(x, state, both)
        here = mark(state, 0)
        module(detour, state, torch.tensor([True, False]))
        for _ in range(40):  # while slot 0 rests, its neighbour goes on
            module(detour[:, :1], state, torch.tensor([False, True]))
        rewind(state, 0, here)
        again = module(y, state, torch.tensor([True, False]))[:1]
        straight = module.init_state(2, "cpu", torch.float32)
        module(x, straight, both)
        expected = module(y, straight, both)[:1]
    torch.testing.assert_close(again, expected, atol=1e-6, rtol=1e-6)


def test_a_mark_is_small() -> None:
    module = Transformer(tiny.transformer())
    state = module.init_state(1, "cpu", torch.float32)
    assert sum(t.numel() for t in mark(state, 0).tensors) < nbytes(state) / 1000


def test_a_saved_slot_goes_on_in_another_state() -> None:
    torch.manual_seed(3)
    module = Transformer(tiny.transformer()).eval()
    x = torch.randn(1, 60, 32)
    with torch.inference_mode():
        state = module.init_state(1, "cpu", torch.float32)
        module(x[:, :40], state, all_active(1))
        other = filled(module.init_state(3, "cpu", torch.float32))
        restore_slot(other, 2, save_slot(state, 0))
        only = torch.tensor([False, False, True])
        got = module(x[:, 40:].expand(3, -1, -1), other, only)[2:]
        expected = module(x[:, 40:], state, all_active(1))
    torch.testing.assert_close(got, expected)


def test_gradients_flow_through_a_state_that_keeps_nothing() -> None:
    module = Transformer(tiny.transformer())
    x = torch.randn(1, 30, 32, requires_grad=True)
    module(
        x, module.init_state(1, "cpu", torch.float32, remember=False), all_active(1)
    ).sum().backward()
    assert x.grad is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_gradients_flow_through_convolutions(padding: str) -> None:
    conv = CausalConv1d(2, 3, 4, stride=2, padding=padding)  # pyright: ignore
    x = torch.randn(1, 2, 8, requires_grad=True)
    conv(x, conv.init_state(1, "cpu", torch.float32), all_active(1)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert conv.conv.weight.grad is not None


def test_a_horizon_changes_nothing_but_what_is_read() -> None:
    torch.manual_seed(4)
    module = Transformer(tiny.transformer()).eval()
    x = torch.randn(1, 40, 32)
    states = [filled(module.init_state(1, "cpu", torch.float32)) for _ in range(2)]
    capacity = module.config.capacity
    with torch.inference_mode():
        for t in range(40):
            full = module(x[:, t : t + 1], states[0], all_active(1))
            near = module(x[:, t : t + 1], states[1], all_active(1), horizon=t + 1)
            torch.testing.assert_close(near, full)
        beyond = module(x, states[1], all_active(1), horizon=10 * capacity)
        torch.testing.assert_close(beyond, module(x, states[0], all_active(1)))
