"""`forward` of both model classes against transformers' on the same checkpoint."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kiku.errors import InputError, UnsupportedConfig
from kiku.hf import (
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextModel,
)
from tests.hf.tiny_checkpoint import CONFIG, VOCAB_SIZE, columns

Ours = KyutaiSpeechToTextForConditionalGeneration
WINDOW = 12  # of CONFIG


@torch.no_grad()
def their_logits(model: Any, ids: torch.Tensor, **arguments: Any) -> torch.Tensor:
    return model(input_ids=ids, **arguments).logits


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert bool((ours[..., -1] == -torch.inf).all())
    torch.testing.assert_close(ours[..., :-1], theirs[..., :-1], atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_are_theirs_within_the_window(theirs: Any, ours: Ours) -> None:
    ids = columns(3, WINDOW)
    ids[0, :2] = theirs.config.audio_pad_token_id  # adds nothing, in every place
    ids[1, 3, 4] = theirs.config.audio_pad_token_id
    out = ours(ids)
    assert out.logits.shape == (3, WINDOW, VOCAB_SIZE)
    close(out.logits, their_logits(theirs, ids))
    assert out.loss is None
    assert out.hidden_states is None


@torch.no_grad()
def test_the_window_is_kept_where_theirs_keeps_it(theirs: Any, ours: Ours) -> None:
    """Theirs does with a cache and one position a call; without a cache it sees everything."""
    ids = columns(2, 40)
    past, steps = None, []
    for t in range(40):
        out = theirs(input_ids=ids[:, t : t + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        steps.append(out.logits)
    wanted = torch.cat(steps, 1)
    assert not torch.allclose(their_logits(theirs, ids)[:, 20:], wanted[:, 20:], atol=1e-2)
    close(ours(ids, use_cache=False).logits, wanted)
    close(ours(ids, use_cache=True).logits, wanted)


@pytest.mark.parametrize("cuts", [[40], [1, 39], [7, 13, 20], [1] * 40])
@torch.no_grad()
def test_a_past_goes_on_however_it_was_cut(ours: Ours, cuts: list[int]) -> None:
    ids = columns(2, 40, seed=1)
    whole = ours(ids, use_cache=False).logits
    past, parts = None, []
    for part in ids.split(cuts, dim=1):
        out = ours(part, past_key_values=past)
        past = out.past_key_values
        parts.append(out.logits)
    assert past is not None
    assert past.get_seq_length() == 40
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_past_longer_than_a_piece(ours: Ours) -> None:
    ids = columns(1, 150, seed=2)
    first = ours(ids[:, :140], output_hidden_states=True)
    then = ours(ids[:, 140:], past_key_values=first.past_key_values)
    whole = ours(ids, use_cache=False, output_hidden_states=True)
    torch.testing.assert_close(then.logits, whole.logits[:, 140:], atol=1e-5, rtol=0)
    for part, all_of_it in zip(first.hidden_states, whole.hidden_states, strict=True):
        torch.testing.assert_close(part, all_of_it[:, :140], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_past_knows_its_size(ours: Ours) -> None:
    past = ours(columns(3, 20, seed=3)).past_key_values
    assert past.nbytes() > 0
    assert past.batch_size == 3


@torch.no_grad()
def test_hidden_states_are_theirs(theirs: Any, ours: Ours) -> None:
    ids = columns(2, 9)
    wanted = theirs(input_ids=ids, output_hidden_states=True).hidden_states
    given = ours(ids, output_hidden_states=True).hidden_states
    trunk = ours.model(ids, output_hidden_states=True)
    assert len(given) == len(wanted) == 3
    for mine, again, other in zip(given, trunk.hidden_states, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
        torch.testing.assert_close(again, other, atol=1e-4, rtol=0)
    torch.testing.assert_close(trunk.last_hidden_state, wanted[-1], atol=1e-4, rtol=0)


KEEP = [1, 3, torch.tensor([0, 4]), torch.tensor([[1, 2], [0, 8]]), torch.rand(2, 9) > 0.5]


@pytest.mark.parametrize("num_padding", [0, 2])
@pytest.mark.parametrize("watched", [False, True])
def test_gradients_reach_hidden_states(
    theirs: Any, ours: Ours, num_padding: int, watched: bool
) -> None:
    ids, mask = columns(2, 7), torch.ones(2, 7, dtype=torch.int64)
    mask[0, 7 - num_padding :] = 0
    asked = {"attention_mask": mask} if num_padding else {}

    def gradients(model: Any, **more: Any) -> tuple[torch.Tensor, ...]:
        out = model(ids, **asked, output_hidden_states=True, use_cache=False, **more)
        if model is ours:
            assert not any(one[~mask.bool()].any() for one in out.hidden_states)
        told = out.logits[..., : VOCAB_SIZE - 1][mask.bool()].square().sum()
        return torch.autograd.grad(told, out.hidden_states)

    for given, wanted in zip(
        gradients(ours, output_attentions=watched), gradients(theirs), strict=True
    ):
        torch.testing.assert_close(given[mask.bool()], wanted[mask.bool()], atol=1e-3, rtol=1e-3)
        assert not given[~mask.bool()].any()


@pytest.mark.parametrize("how", ["plain", "padded", "watched"])
@torch.no_grad()
def test_a_young_past_is_not_read_to_its_end(ours: Ours, how: str) -> None:
    ids, more = columns(2, 9), {}
    if how == "padded":
        mask = torch.ones(2, 9, dtype=torch.int64)
        mask[0, 7:] = 0
        more = {"attention_mask": mask}
    past = ours(ids[:, :4], use_cache=True).past_key_values
    for ring in past.state.rings:
        ring.values[:, :, 9:] = torch.nan
    out = ours(ids[:, 4:], past_key_values=past, output_attentions=how == "watched", **more)
    wanted = ours(ids, use_cache=False, **more).logits[:, 4:]
    torch.testing.assert_close(out.logits[..., :-1], wanted[..., :-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "keep", KEEP, ids=["last", "last three", "positions", "of each row", "mask"]
)
@torch.no_grad()
def test_logits_to_keep(theirs: Any, ours: Ours, keep: int | torch.Tensor) -> None:
    ids = columns(2, 9)
    close(ours(ids, logits_to_keep=keep).logits, their_logits(theirs, ids, logits_to_keep=keep))


def masked_loss(theirs: Any, ids: torch.Tensor, labels: torch.Tensor, **how: Any) -> torch.Tensor:
    """Theirs without the filler column, which takes a share of the probability there."""
    logits = theirs(input_ids=ids).logits[..., :-1]
    return theirs.loss_function(logits=logits, labels=labels, vocab_size=VOCAB_SIZE - 1, **how)


@pytest.mark.parametrize(
    "how", [{}, {"num_items_in_batch": 7}, {"num_items_in_batch": torch.tensor(7)}]
)
@torch.no_grad()
def test_the_loss_is_theirs(theirs: Any, ours: Ours, how: dict[str, Any]) -> None:
    ids = columns(3, 10)
    labels = ids[..., 0].masked_fill(torch.rand(3, 10) < 0.3, -100).clamp(max=VOCAB_SIZE - 2)
    given = ours(ids, labels=labels, **how).loss
    torch.testing.assert_close(given, masked_loss(theirs, ids, labels, **how), atol=1e-5, rtol=1e-5)
    wanted = theirs(input_ids=ids, labels=labels, **how).loss
    assert given < wanted  # the share of the filler
    torch.testing.assert_close(given, wanted, rtol=0.1, atol=0)


def test_gradients_are_theirs(theirs: Any, saved: Path) -> None:
    model = Ours.from_pretrained(saved).train()
    ids = columns(2, 10)
    labels = ids[..., 0].clamp(max=VOCAB_SIZE - 2)
    out = model(ids, labels=labels)
    assert out.past_key_values is None  # nothing read with a past can be differentiated
    out.loss.backward()
    theirs.zero_grad()
    masked_loss(theirs, ids, labels).backward()
    given = model.model.lm.text_head.weight.grad
    torch.testing.assert_close(given, theirs.lm_head.weight.grad[:-1], atol=1e-5, rtol=1e-4)
    table = theirs.model.embed_tokens.embed_tokens.weight.grad
    torch.testing.assert_close(
        model.model.lm.text_embedding.weight.grad, table[:VOCAB_SIZE], atol=1e-5, rtol=1e-4
    )
    theirs.zero_grad()
    assert not model(ids, use_cache=True).logits.requires_grad


@torch.no_grad()
def test_inputs_embeds_stand_for_ids(ours: Ours) -> None:
    ids = columns(2, 9)
    embeds = ours.model.lm.embed(ids)
    torch.testing.assert_close(ours(inputs_embeds=embeds).logits, ours(ids).logits)


@torch.no_grad()
def test_positions_that_count_on(theirs: Any, ours: Ours) -> None:
    ids = columns(2, 9)
    shifted = torch.arange(100, 109)[None]
    close(ours(ids, position_ids=shifted).logits, their_logits(theirs, ids, position_ids=shifted))
    for start in (0, 100):
        at = torch.arange(start, start + 9)[None]
        past = ours(ids, position_ids=at if start else None).past_key_values
        ours(ids, past_key_values=past, position_ids=at + 9)
        with pytest.raises(InputError, match=r"count on.*without a past only"):
            ours(ids, past_key_values=past, position_ids=at + 9)
    for wrong in (torch.arange(8)[None], torch.zeros(3, 9), torch.zeros(1, 1, 9)):
        with pytest.raises(InputError, match=r"position_ids must be \[2, 9\]"):
            ours(ids, position_ids=wrong)


OPEN_POSITIONS = {
    "skipping": torch.arange(0, 18, 2)[None],
    "all the same": torch.zeros(1, 9, dtype=torch.int64),
    "packed": torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8]]),
    "from below zero": torch.tensor([[-2, -1, 0, 1, -2, -1, 0, 1, 2]]),
}


@pytest.mark.parametrize("case", OPEN_POSITIONS)
@torch.no_grad()
def test_positions_that_begin_anew_pack_several_sequences(
    theirs: Any, ours: Ours, case: str
) -> None:
    ids, positions = columns(2, 9), OPEN_POSITIONS[case]
    out = ours(ids, position_ids=positions)
    close(out.logits, their_logits(theirs, ids, position_ids=positions))
    assert out.past_key_values is None
    if case == "packed":
        close(out.logits[:1, 4:6], their_logits(theirs, ids[:1, 4:6]))
    with pytest.raises(InputError, match="without a past only"):
        ours(ids, position_ids=positions, use_cache=True)


HOLES = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 1, 1, 1, 0], [1] * 9])


@pytest.mark.parametrize("how", ["counted", "cumsum", "skipping"])
@torch.no_grad()
def test_holes_in_a_mask(theirs: Any, ours: Ours, how: str) -> None:
    ids, real = columns(3, 9), HOLES.bool()
    positions = {
        "counted": None,
        "cumsum": (HOLES.cumsum(1) - 1).clamp(min=1 - 1),
        "skipping": torch.arange(0, 27, 3).expand(3, 9),
    }[how]
    asked = {"attention_mask": HOLES, "position_ids": positions}
    out = ours(ids, **asked, output_hidden_states=True)
    wanted = theirs(input_ids=ids, **asked, output_hidden_states=True)
    close(out.logits[real], wanted.logits[real])
    for mine, other in zip(out.hidden_states, wanted.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], other[real], atol=1e-4, rtol=0)
        assert not mine[~real].any()
    assert (out.past_key_values is not None) == (how == "cumsum")


@torch.no_grad()
def test_cumsum_positions_go_on_from_a_past(theirs: Any, ours: Ours) -> None:
    """As generation loops count them: rows that are padded on the left begin at 0."""
    ids = columns(2, 12, seed=5)
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, :5] = 0
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)
    past, their_past = None, None
    for start, end in ((0, 9), (9, 10), (10, 12)):
        asked = dict(
            attention_mask=mask[:, :end], position_ids=positions[:, start:end], use_cache=True
        )
        out = ours(ids[:, start:end], past_key_values=past, **asked)
        wanted = theirs(input_ids=ids[:, start:end], past_key_values=their_past, **asked)
        past, their_past = out.past_key_values, wanted.past_key_values
        real = mask[:, start:end].bool()
        close(out.logits[real], wanted.logits[real])


def four_axes() -> dict[str, torch.Tensor]:
    causal = torch.ones(9, 9, dtype=torch.bool).tril().expand(1, 1, 9, 9)
    both_ways = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    each_head = causal.expand(2, 4, 9, 9).clone()
    each_head[1, 2, 5:, :3] = False
    bias = torch.zeros(2, 1, 9, 9).masked_fill(~causal, torch.finfo(torch.float32).min)
    bias[0, 0, 4, 2] = -1.5
    return {"causal": causal, "both ways": both_ways, "each head": each_head, "bias": bias}


@pytest.mark.parametrize("case", four_axes())
@torch.no_grad()
def test_masks_of_four_axes(theirs: Any, ours: Ours, case: str) -> None:
    ids, mask = columns(2, 9), four_axes()[case]
    close(
        ours(ids, attention_mask=mask).logits,
        their_logits(theirs, ids, attention_mask=mask, use_cache=False),
    )
    positions = torch.arange(0, 18, 2)[None]
    asked = dict(attention_mask=mask, position_ids=positions, use_cache=False)
    close(ours(ids, **asked).logits, their_logits(theirs, ids, **asked))


@pytest.fixture
def eager(theirs: Any) -> Any:
    """Theirs, as it gives attention weights."""
    before = theirs.config._attn_implementation
    theirs.set_attn_implementation("eager")
    yield theirs
    theirs.set_attn_implementation(before)


def same_weights(given: Any, wanted: Any, real: torch.Tensor | None = None) -> None:
    assert len(given) == len(wanted) == 2
    for mine, other in zip(given, wanted, strict=True):
        if real is not None:
            mine, other = (one.transpose(1, 2)[real] for one in (mine, other))
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_attention_weights_are_theirs(eager: Any, ours: Ours, cached: bool) -> None:
    ids = columns(2, WINDOW)
    asked = dict(output_attentions=True, use_cache=cached)
    out = ours(ids, **asked)
    same_weights(out.attentions, eager(input_ids=ids, **asked).attentions)
    assert out.keys()[-1] == "attentions"
    assert (out.past_key_values is not None) == cached
    torch.testing.assert_close(out.logits, ours(ids).logits, atol=1e-5, rtol=0)
    if not cached:
        asked["attention_mask"] = HOLES[:2, :9]
        wanted = eager(input_ids=ids[:, :9], **asked).attentions
        given = ours(ids[:, :9], **asked).attentions
        same_weights(given, wanted, HOLES[:2].bool())
        assert all(torch.isfinite(layer).all() for layer in given)  # of padding too
        asked["attention_mask"] = four_axes()["bias"]
        wanted = eager(input_ids=ids[:, :9], **asked).attentions
        same_weights(ours(ids[:, :9], **asked).attentions, wanted)


@torch.no_grad()
def test_attention_weights_with_a_past(eager: Any, ours: Ours) -> None:
    ids, past, their_past = columns(2, 40), None, None
    for start, end in ((0, 5), (5, 9), *((t, t + 1) for t in range(9, 40))):
        asked = dict(output_attentions=True, use_cache=True)
        out = ours(ids[:, start:end], past_key_values=past, **asked)
        wanted = eager(input_ids=ids[:, start:end], past_key_values=their_past, **asked)
        past, their_past = out.past_key_values, wanted.past_key_values
        same_weights(out.attentions, wanted.attentions)
    mask = torch.ones(2, 5)
    mask[1, :2] = 0
    with pytest.raises(UnsupportedConfig, match="padding and a past"):
        ours(ids[:, :5], attention_mask=mask, output_attentions=True, use_cache=True)
    padded = ours(ids[:, :5], attention_mask=mask).past_key_values
    with pytest.raises(UnsupportedConfig, match="padding and a past"):
        ours(ids[:, :5], past_key_values=padded, output_attentions=True)


@torch.no_grad()
def test_attention_weights_of_a_long_piece(ours: Ours) -> None:
    """Longer than what attention takes at once: each column's weights are those it has alone."""
    ids = columns(1, 100, seed=2)
    first = ours(ids[:, :20])
    out = ours(ids[:, 20:], past_key_values=first.past_key_values, output_attentions=True)
    whole = ours(ids, output_attentions=True, use_cache=False)
    torch.testing.assert_close(out.logits, whole.logits[:, 20:], atol=1e-4, rtol=0)
    for mine, other in zip(out.attentions, whole.attentions, strict=True):
        assert mine.shape == (1, 4, 80, WINDOW - 1 + 80)
        torch.testing.assert_close(mine, other[:, :, 20:, 20 - WINDOW + 1 :], atol=1e-5, rtol=0)


@torch.no_grad()
def test_switches_of_the_config(theirs: Any, saved: Path) -> None:
    model, ids = Ours.from_pretrained(saved), columns(1, 5)
    for name, key in (
        ("output_hidden_states", "hidden_states"), ("output_attentions", "attentions")
    ):  # fmt: skip
        setattr(model.config, name, True)
        assert key in model(ids)
        assert key in model.model(ids)
        assert key not in model(ids, **{name: False})
        setattr(model.config, name, False)
        assert key not in model(ids)
    model.config.return_dict = False
    assert isinstance(model(ids), tuple)
    assert isinstance(model.model(ids), tuple)
    assert model(ids, return_dict=True).logits.shape == (1, 5, VOCAB_SIZE)
    theirs.config.output_hidden_states = True
    assert "hidden_states" in theirs(input_ids=ids)
    theirs.config.output_hidden_states = False


def test_dropout_is_refused_where_it_would_act(saved: Path) -> None:
    model, ids = Ours.from_pretrained(saved, attention_dropout=0.1), columns(1, 5)
    assert model(ids).logits.shape == (1, 5, VOCAB_SIZE)
    with pytest.raises(UnsupportedConfig, match=r"attention_dropout=0\.1 is not supported"):
        model.train()(ids)


def test_embeddings_of_columns_are_theirs(theirs: Any, saved: Path) -> None:
    model, ids = Ours.from_pretrained(saved), columns(2, 5)
    ids[0, 1, 3] = theirs.config.audio_pad_token_id
    wanted = theirs.get_input_embeddings()(ids)
    module = model.get_input_embeddings()
    torch.testing.assert_close(module(ids), wanted)
    assert module is model.model.get_input_embeddings() is model.model.embed_tokens
    torch.testing.assert_close(model(inputs_embeds=wanted).logits, model(ids).logits)
    assert model.get_output_embeddings() is model.lm_head
    assert not any("embed_tokens" in name for name in model.state_dict())
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda *given: seen.append(given[-1]))
    model(ids)
    handle.remove()
    assert seen[0].shape == (2, 5, 32)
    assert model.to(torch.bfloat16).get_input_embeddings()(ids).dtype == torch.bfloat16


@pytest.mark.parametrize("how", [None, {"use_reentrant": False, "preserve_rng_state": False}])
def test_checkpointed_gradients_are_the_same(saved: Path, how: dict[str, Any] | None) -> None:
    model, ids = Ours.from_pretrained(saved).train(), columns(2, 20)
    gradients: list[torch.Tensor] = []
    runs: list[bool] = []
    model.model.lm.transformer.layers[0].register_forward_pre_hook(
        lambda *given: runs.append(model.is_gradient_checkpointing)
    )
    for on in (False, True):
        if on:
            model.gradient_checkpointing_enable(how)
        assert model.is_gradient_checkpointing == on
        model(ids, labels=ids[..., 0].clamp(max=VOCAB_SIZE - 2)).loss.backward()
        gradients.append(model.model.lm.text_embedding.weight.grad.clone())
        model.zero_grad()
    torch.testing.assert_close(*gradients)
    assert runs == [False, True, True]  # once more for the gradients
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    model.activation_checkpointing_enable()
    assert model.is_gradient_checkpointing
    model.activation_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_every_other_layer_can_be_checkpointed(saved: Path) -> None:
    model, ids = Ours.from_pretrained(saved).train(), columns(2, 9)
    runs: list[int] = []
    for i, layer in enumerate(model.model.lm.transformer.layers):
        layer.register_forward_pre_hook(lambda *_, i=i: runs.append(i))
    model.activation_checkpointing_enable(None, every_n_layers=2, offload=False)
    model(ids, labels=ids[..., 0].clamp(max=VOCAB_SIZE - 2)).loss.backward()
    assert runs == [0, 1, 0]
    with pytest.raises(UnsupportedConfig, match="offload=True is not supported"):
        model.gradient_checkpointing_enable(offload=True)
    with pytest.raises(InputError, match="every_n_layers must be at least 1, not 0"):
        model.gradient_checkpointing_enable(every_n_layers=0)


@torch.no_grad()
def test_a_cache_of_transformers(transformers: ModuleType, ours: Ours) -> None:
    ids, wanted = columns(2, 9), ours(columns(2, 9)).logits
    cache = transformers.DynamicCache()
    parts = [ours(ids[:, t : t + 3], past_key_values=cache).logits for t in (0, 3, 6)]
    torch.testing.assert_close(torch.cat(parts, 1)[..., :-1], wanted[..., :-1], atol=1e-4, rtol=0)
    filled = transformers.DynamicCache()
    filled.update(torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 3, 8), 0)
    with pytest.raises(UnsupportedConfig, match="a DynamicCache that holds something"):
        ours(ids, past_key_values=filled)


@torch.no_grad()
def test_rows_of_a_past_can_be_chosen(ours: Ours) -> None:
    ids, rows = columns(3, 9), torch.tensor([2, 0, 2])
    wanted = ours(ids[rows]).logits[:, 5:]
    for choose in ("reorder_cache", "batch_select_indices"):
        past = ours(ids[:, :5], use_cache=True).past_key_values
        getattr(past, choose)(rows)
        given = ours(ids[rows][:, 5:], past_key_values=past)
        torch.testing.assert_close(given.logits[..., :-1], wanted[..., :-1], atol=1e-4, rtol=0)
        assert given.past_key_values.batch_size == 3


def test_an_unknown_argument_is_refused(ours: Ours) -> None:
    ids = columns(1, 3)
    for call in (ours, ours.model):
        call(ids, token=None)
        with pytest.raises(InputError, match="forward does not know colour"):
            call(ids, colour="red")


PADDED = torch.tensor([[1] * 9, [0] * 4 + [1] * 5, [1] * 6 + [0] * 3, [0] * 2 + [1] * 5 + [0] * 2])


@pytest.mark.parametrize("cached", [False, True])
@torch.no_grad()
def test_padding_is_not_read(theirs: Any, ours: Ours, cached: bool) -> None:
    ids = columns(4, 9)
    out = ours(ids, attention_mask=PADDED, use_cache=cached, output_hidden_states=True)
    wanted = theirs(input_ids=ids, attention_mask=PADDED, output_hidden_states=True)
    real = PADDED.bool()
    close(out.logits[real], wanted.logits[real])
    for mine, other in zip(out.hidden_states, wanted.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], other[real], atol=1e-4, rtol=0)
        assert not mine[~real].any()
    everything = ours(ids, attention_mask=torch.ones(4, 9), use_cache=cached).logits
    torch.testing.assert_close(everything, ours(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_row_padded_on_the_left_goes_on_as_if_alone(theirs: Any, ours: Ours) -> None:
    ids = columns(2, 12, seed=5)
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, :5] = 0
    first = ours(ids[:, :9], attention_mask=mask[:, :9])
    close(
        ours(ids[:, 9:], attention_mask=mask, past_key_values=first.past_key_values).logits,
        their_logits(theirs, ids, attention_mask=mask)[:, 9:],
    )


def test_a_mask_that_cannot_be_is_refused(ours: Ours) -> None:
    ids = columns(1, 5)
    past = ours(ids, use_cache=True).past_key_values
    for wrong in ([[1, 1, 1]], [1, 1, 1, 1, 1], [[[[1]]]], [[[1, 1, 1, 1, 1]]]):
        with pytest.raises(InputError, match="attention_mask"):
            ours(ids, attention_mask=torch.tensor(wrong))
    integers = torch.ones(1, 1, 5, 5, dtype=torch.int64)
    with pytest.raises(InputError, match="booleans or numbers to add"):
        ours(ids, attention_mask=integers)
    for mask in (torch.tensor([[1] * 6 + [0, 1, 1, 1]]), integers.bool()):
        with pytest.raises(InputError, match="without a past only"):
            ours(ids, attention_mask=mask, past_key_values=past)
    with pytest.raises(InputError, match="without a past only"):
        ours(ids, attention_mask=integers.bool(), use_cache=True)


@torch.no_grad()
def test_a_row_of_padding_only(ours: Ours) -> None:
    out = ours(
        columns(2, 5), attention_mask=torch.zeros(2, 5), use_cache=True, output_hidden_states=True
    )
    assert not out.hidden_states[-1].any()
    assert not out.past_key_values.state.position.any()


def test_ids_that_cannot_be_are_refused(ours: Ours) -> None:
    good = columns(1, 3)
    for place, value in (((0, 0, 0), VOCAB_SIZE), ((0, 0, 3), 17), ((0, 1, 0), -2)):
        wrong = good.clone()
        wrong[place] = value
        with pytest.raises(InputError, match=r"must be in 0\.\."):
            ours(wrong)
    for wrong in (good[0], good[..., :-1]):
        with pytest.raises(InputError, match="input_ids must be"):
            ours(wrong)
    with pytest.raises(InputError, match="exactly one"):
        ours()


@torch.no_grad()
def test_the_published_start_id_stands_for_the_trained_one(saved: Path) -> None:
    model = Ours.from_pretrained(saved)
    ids = columns(1, 4)
    ids[:, 0, 0] = VOCAB_SIZE - 1
    wanted = model(ids).logits
    model.config.bos_token_id = 48_000
    ids[:, 0, 0] = 48_000
    torch.testing.assert_close(model(ids).logits, wanted)


@torch.no_grad()
def test_outputs_by_name_place_and_tuple(ours: Ours) -> None:
    ids = columns(1, 4)
    labels = ids[..., 0].clamp(max=VOCAB_SIZE - 2)
    out = ours(ids, labels=labels, use_cache=False)
    assert out.keys() == ["loss", "logits"] == list(out)
    assert out["logits"] is out.logits is out[1]
    assert "past_key_values" not in out
    assert len(out) == 2
    with pytest.raises(KeyError):
        out["past_key_values"]
    loss, logits = ours(ids, labels=labels, use_cache=False, return_dict=False)
    torch.testing.assert_close(loss, out.loss)
    torch.testing.assert_close(logits, out.logits)
    (hidden,) = ours.model(ids, use_cache=False, return_dict=False)
    torch.testing.assert_close(F.linear(hidden, ours.lm_head.weight), logits[..., :-1])


@torch.no_grad()
def test_the_trunk_loads_by_itself(transformers: ModuleType, saved: Path) -> None:
    ids = columns(1, 4)
    wanted = transformers.KyutaiSpeechToTextModel.from_pretrained(saved)(
        input_ids=ids
    ).last_hidden_state
    model = KyutaiSpeechToTextModel.from_pretrained(saved)
    torch.testing.assert_close(model(ids).last_hidden_state, wanted, atol=1e-4, rtol=0)
    assert model.trunk is model


def test_a_model_from_a_config(ours: Ours) -> None:
    model = Ours(KyutaiSpeechToTextConfig(**CONFIG))
    assert (
        model.num_parameters() == ours.num_parameters() == model.num_parameters(only_trainable=True)
    )
    assert model.vocab_size == VOCAB_SIZE
    assert model.get_input_embeddings().weight is model.model.lm.text_embedding.weight
    assert 0.01 < float(model.lm_head.weight.detach().std()) < 0.03
