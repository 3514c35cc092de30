"""How wide passes become: by what they cost and by how many guesses are right."""

from collections.abc import Callable

import numpy as np
import pytest

from kiku.engine.widths import Widths


class World:
    """Passes that cost what `cost` says, and guesses that are right so often."""

    def __init__(self, cost: Callable[[int], float], right: float, seed: int = 0) -> None:
        self.cost, self.right = cost, right
        self.dice = np.random.default_rng(seed)

    def play(self, widths: Widths, num_passes: int, num_blocks: int = 1) -> list[int]:
        """The widths that are chosen."""
        chosen: list[int] = []
        for _ in range(num_passes):
            width = widths.choose([1_000] * num_blocks)
            chosen.append(width)
            in_vain: list[int] = []
            for _ in range(num_blocks):
                wrong = np.flatnonzero(self.dice.random(width - 1) > self.right)
                in_vain.append(width - 1 - int(wrong[0]) if len(wrong) else 0)
            widths.note([width] * num_blocks, in_vain, self.cost(width * num_blocks))
        return chosen


def flat(columns: int) -> float:
    """The weights are all that costs."""
    return 50.0


def steep(columns: int) -> float:
    """Each column beyond four costs."""
    return 50.0 + 10.0 * max(0, columns - 4)


def single(columns: int) -> float:
    """There is nothing in common."""
    return 10.0 * columns


@pytest.mark.parametrize(
    ("cost", "right", "num_blocks", "best"),
    [
        (flat, 0.7, 1, 16), (flat, 0.7, 3, 16), (steep, 0.7, 1, 4), (steep, 0.999, 1, 16),
        (steep, 0.5, 4, 1), (single, 0.7, 1, 1), (single, 0.7, 4, 1),
    ],
)  # fmt: skip
def test_the_width_that_brings_most_is_found_and_kept(
    cost: Callable[[int], float], right: float, num_blocks: int, best: int
) -> None:
    widths = Widths(16)
    chosen = World(cost, right).play(widths, 1_000, num_blocks)
    late = chosen[100:]
    assert late.count(best) > 0.9 * len(late)


def test_wide_passes_come_first() -> None:
    assert Widths(16).choose([99]) == 16
    assert Widths(5).choose([99]) == 5
    assert Widths(1).choose([99]) == 1


def test_costs_that_change_are_noticed() -> None:
    widths, world = Widths(16), World(steep, 0.7)
    world.play(widths, 500)
    world.cost = flat
    assert world.play(widths, 1_500)[-200:].count(16) > 180
    world.cost = single
    assert world.play(widths, 1_000)[-200:].count(1) > 180


def test_guesses_that_become_better_are_noticed() -> None:
    widths, world = Widths(16), World(steep, 0.5)
    world.play(widths, 500)
    world.right = 0.995
    assert world.play(widths, 1_500)[-200:].count(16) > 180


def test_a_standstill_changes_little() -> None:
    widths, world = Widths(16), World(steep, 0.7)
    world.play(widths, 500)
    width = widths.choose([1_000])
    widths.note([width], [0], 1e6)
    assert world.play(widths, 50).count(width) > 40


def test_a_first_pass_that_is_slow_changes_nothing() -> None:
    widths = Widths(16)
    widths.note([16], [0], 1e6)
    assert World(flat, 0.7).play(widths, 500)[-300:].count(16) > 280


def test_a_width_that_is_held_is_held() -> None:
    widths, world = Widths(16, is_held=True), World(single, 0.5)
    assert set(world.play(widths, 300)) == {16}
    with widths.holding(7):
        assert set(world.play(widths, 300)) == {7}
    assert set(world.play(widths, 300)) == {16}


def test_after_a_width_was_held_it_is_chosen_again() -> None:
    widths, world = Widths(16), World(single, 0.5)
    with widths.holding(7):
        world.play(widths, 300)
    assert world.play(widths, 300)[-100:].count(1) > 90


def test_beside_slots_with_one_frame_left_the_cost_is_that_of_what_is_read() -> None:
    widths, dice = Widths(16), np.random.default_rng(0)
    left, chosen = [1] * 8 + [1_000], list[int]()
    for _ in range(600):
        width = widths.choose(left)
        chosen.append(width)
        wrong = np.flatnonzero(dice.random(width - 1) > 0.7)
        in_vain = width - 1 - int(wrong[0]) if len(wrong) else 0
        # Flat up to 12 columns: four of the one that has many frames beside the eight.
        seconds = 50.0 + 40.0 * max(0, 8 + width - 12)
        widths.note([1] * 8 + [width], [0] * 8 + [in_vain], seconds)
    assert chosen[200:].count(4) > 0.9 * 400
