"""The decoder: laws, embeddings, heads."""

import torch
from torch import Tensor

from kiku.lm import LM, LMState
from kiku.nn.state import all_active
from tests import laws, tiny


def columns(batch_size: int, length: int, seed: int = 0) -> Tensor:
    """[B, T, 1 + K] random columns."""
    random = torch.Generator().manual_seed(seed)
    text = torch.randint(0, len(tiny.PIECES), (batch_size, length, 1), generator=random)
    return torch.cat(
        [text, torch.randint(0, 16, (batch_size, length, 4), generator=random)], dim=-1
    )


def as_law(model: LM, what: str) -> laws.Remembering:
    """Time last: columns come as [B, 1 + K, T], results go as [B, D, T]."""

    def run(x: Tensor, state: LMState, active: Tensor) -> Tensor:
        out = getattr(model(x.transpose(1, 2), state, active), what)
        return out.transpose(1, 2)

    # Weights of 0.3 amplify what summing in another order changes: logits of size 3 differ by 2e-5.
    return laws.Remembering(
        lambda b: model.init_state(b, "cpu", torch.float32), run, tolerance=1e-4
    )


def test_laws_hold_for_logits_and_pauses() -> None:
    model = tiny.lm()
    x = columns(3, 36).transpose(1, 2)
    laws.check_all(as_law(model, "logits"), x, model)
    laws.check_all(as_law(model, "pauses"), x, model)


def test_a_column_is_the_sum_of_its_embeddings() -> None:
    model = tiny.lm()
    column = torch.tensor([[[5, 1, 2, 3, 15]]])
    rows = [model.text_embedding.weight[5]]
    rows += [model.code_embeddings[k].weight[c] for k, c in enumerate((1, 2, 3, 15))]
    torch.testing.assert_close(model.embed(column)[0, 0], torch.stack(rows).sum(0))


def test_an_id_of_minus_one_adds_nothing() -> None:
    model = tiny.lm()
    column = torch.tensor([[[-1, 1, -1, -1, -1]]])
    torch.testing.assert_close(model.embed(column)[0, 0], model.code_embeddings[0].weight[1])


def test_the_initial_column_is_the_one_after_the_last_ids() -> None:
    model = tiny.lm()
    assert model.initial_column(2, "cpu").tolist() == [[[len(tiny.PIECES), 16, 16, 16, 16]]] * 2


def test_pauses_are_the_first_class_of_each_head() -> None:
    model = tiny.lm()
    out = model(columns(1, 3), model.init_state(1, "cpu", torch.float32), all_active(1))
    expected = [head(out.hidden).softmax(-1)[..., 0] for head in model.pause_heads]
    assert out.pauses is not None
    torch.testing.assert_close(out.pauses, torch.stack(expected, -1))
    without = tiny.lm(num_pause_heads=0)
    assert (
        without(columns(1, 3), without.init_state(1, "cpu", torch.float32), all_active(1)).pauses
        is None
    )
