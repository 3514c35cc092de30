"""How well a teacher's states are explained if a part of it is missing: `python -m recipes.english
teacher`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kiku.nn.rope import Rope, rotate
from recipes.demo.corpus import Corpus, Recording
from recipes.english.rows import side_by_side
from recipes.english.teacher import Variables, begin_from, variable
from recipes.english.trunk import AttentionAids, Trunk, trunk_config

_HEAD = 64
_RIDGE = 10.0
"""Ridge of the linear map, whose inputs have a spread of about 1."""


@dataclass(frozen=True, slots=True)
class Without:
    """How a teacher is changed.

    Attributes:
        pairs: give 25 states a second instead of 50.
        places: add the encodings of positions.
        rotated: use rotary positions, as Mimi does.
        biases: biases that are left out: those of "queries", "values", "attention" (its result),
            "wide" and "narrow" (of the feed-forward parts).
        ahead: states of the future that each layer sees; a single number is that of all layers.
    """

    pairs: bool = True
    places: bool = True
    rotated: bool = False
    biases: frozenset[str] = frozenset()
    ahead: tuple[int, ...] = (10_000,)


_CHANGES: tuple[tuple[str, Without], ...] = (
    ("nothing", Without()),
    ("rotary positions beside its own", Without(rotated=True)),
    ("rotary positions in place of its own", Without(rotated=True, places=False)),
    ("no biases within the feed-forward parts", Without(biases=frozenset({"wide"}))),
    ("no biases of what attention adds", Without(biases=frozenset({"attention"}))),
    ("no biases of what the feed-forward parts add", Without(biases=frozenset({"narrow"}))),
    ("no biases of queries", Without(biases=frozenset({"queries"}))),
    ("no biases of values", Without(biases=frozenset({"values"}))),
    ("no future", Without(ahead=(0,))),
    ("no future, but 24 states of it in the last layer", Without(ahead=(0, 0, 0, 0, 0, 24))),
    ("no future, but 12 in each of the last two", Without(ahead=(0, 0, 0, 0, 12, 12))),
    ("no future, but 8 in each of the last three", Without(ahead=(0, 0, 0, 8, 8, 8))),
    ("no future, but 6 in each of the last four", Without(ahead=(0, 0, 6, 6, 6, 6))),
    ("3 states of the future a layer", Without(ahead=(3,))),
    ("4 states of the future a layer", Without(ahead=(4,))),
    ("14 states of the future a layer", Without(ahead=(14,))),
)


class TeacherEncoder:
    """Whisper's encoder, with all its biases."""

    def __init__(self, variables: Variables) -> None:
        """Use the teacher's weights."""
        self.variables = variables
        self._tensors: dict[str, Tensor] = {}  # float32, made when they are needed
        self.num_layers = sum(name.endswith("/ffn/linear_0/weight") for name in variables
                              if name.startswith("encoder/"))  # fmt: skip

    def __call__(self, spectra: Tensor, lengths: Tensor, without: Without) -> Tensor:
        """[B, 80, 4 L + 2], rows of `lengths` [B] pairs of states -> [B, L or 2 L, D]"""
        return self.every(spectra, lengths, without)[-1]

    def every(self, spectra: Tensor, lengths: Tensor, without: Without) -> list[Tensor]:
        """As `__call__`, after each layer; only the last one goes through the last norm."""
        x = F.gelu(F.conv1d(spectra, self._get("conv1/weight"), self._get("conv1/bias")))
        x = F.pad(x, (1, 0))
        x = F.gelu(F.conv1d(x, self._get("conv2/weight"), self._get("conv2/bias"), stride=2))
        if without.places:
            x = x + self._get("position_encodings/encodings").T[:, : x.shape[2]]
        if without.pairs:
            x = F.avg_pool1d(x, 2)
        x = x.transpose(1, 2)
        at = torch.arange(x.shape[1])
        age = at[:, None] - at
        inside = at < lengths[:, None, None] * (1 if without.pairs else 2)
        after: list[Tensor] = []
        for layer in range(self.num_layers):
            ahead = without.ahead[layer % len(without.ahead)]
            visible = ((age >= -ahead) & (inside | (age == 0)))[:, None]
            x = x + self._attention(x, f"layer_{layer}/self_attention", visible, without)
            x = x + self._feed_forward(x, f"layer_{layer}/ffn", without)
            after.append(x)
        return [*after[:-1], self._norm(x, "layer_norm")]

    def _get(self, name: str) -> Tensor:
        if name not in self._tensors:
            self._tensors[name] = variable(self.variables, f"encoder/{name}")
        return self._tensors[name]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._get(f"{name}/gamma"), self._get(f"{name}/beta"))

    def _linear(self, x: Tensor, name: str, *, bias: bool) -> Tensor:
        return F.linear(x, self._get(f"{name}/weight"), self._get(f"{name}/bias") if bias else None)

    def _attention(self, x: Tensor, name: str, visible: Tensor, without: Without) -> Tensor:
        B, L, D = x.shape
        bias = self._get(f"{name}/linear_0/bias").clone().view(3, D)
        for row, which in ((0, "queries"), (2, "values")):
            if which in without.biases:
                bias[row] = 0
        qkv = F.linear(
            self._norm(x, f"{name}/layer_norm"), self._get(f"{name}/linear_0/weight"), bias.view(-1)
        )
        q, k, v = qkv.view(B, L, 3, D // _HEAD, _HEAD).permute(2, 0, 3, 1, 4)
        if without.rotated:
            cos, sin = Rope(_HEAD, trunk_config().rope_theta)(torch.arange(L).expand(B, L))
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        attended = attended.transpose(1, 2).reshape(B, L, D)
        return self._linear(attended, f"{name}/linear_1", bias="attention" not in without.biases)

    def _feed_forward(self, x: Tensor, name: str, without: Without) -> Tensor:
        x = self._norm(x, f"{name}/layer_norm")
        wide = F.gelu(self._linear(x, f"{name}/linear_0", bias="wide" not in without.biases))
        return self._linear(wide, f"{name}/linear_1", bias="narrow" not in without.biases)


def explained(given: Tensor, wanted: Tensor) -> float:
    """The share of the variance of `wanted` [N, D] that a linear map of `given` [N, D] explains.

    The map is fitted on the first half of the rows, and the share is that of the second half; it is
    below 0 if a mean would be better.
    """
    given, wanted = given - given.mean(0), wanted - wanted.mean(0)
    half = len(given) // 2
    learned, fitted = given[:half], wanted[:half]
    square = learned.T @ learned + _RIDGE**2 * torch.eye(given.shape[1])
    left = wanted[half:] - given[half:] @ torch.linalg.solve(square, learned.T @ fitted)
    return float(1 - left.square().sum() / wanted[half:].square().sum())


@torch.no_grad()
def ablations(
    variables: Variables, people: Corpus, recordings: Sequence[Recording]
) -> dict[str, float]:
    """How much of the teacher's states is explained by those of each changed teacher.

    The last entry is for a trunk that begins from the teacher.
    """
    pcm, lengths = side_by_side([people.audio(one) for one in recordings])
    trunk, teacher = Trunk(trunk_config(), 2).eval(), TeacherEncoder(variables)
    begin_from(variables, trunk)
    spectra = trunk.spectra(pcm)
    whole = teacher(spectra, lengths, Without(pairs=False))
    real = torch.arange(pcm.shape[1] // 960) < lengths[:, None]
    wanted = F.avg_pool1d(whole.transpose(1, 2), 2).transpose(1, 2)[real]
    found = {
        name: explained(teacher(spectra, lengths, without)[real], wanted)
        for name, without in _CHANGES
    }
    aids = AttentionAids(10_000, 1.0, 0.0)
    _, begun = trunk.read(trunk.states(spectra, lengths, aids), lengths, aids)
    return {**found, "a trunk that is begun from it": explained(begun[real], wanted)}
