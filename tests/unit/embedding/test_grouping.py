"""Grouping by length: every text once, little padding, few passes."""

from __future__ import annotations

import random

import pytest

from models.embedding.grouping import by_length


def cost(lengths: list[int], groups: list[list[int]], overhead: int) -> int:
    return sum(overhead + len(group) * max(lengths[index] for index in group) for group in groups)


def least_cost(lengths: list[int], overhead: int) -> int:
    """The optimum over all ways to cut the sorted lengths."""
    ordered = sorted(lengths)
    best = [0]
    for end in range(1, len(ordered) + 1):
        best.append(min(best[start] + overhead + (end - start) * ordered[end - 1] for start in range(end)))
    return best[-1]


@pytest.mark.parametrize("overhead", [0, 64, 100_000])
def test_every_text_is_in_one_group_and_the_last_of_a_group_is_its_longest(overhead: int) -> None:
    lengths = [random.Random(3).randrange(2, 257) for _ in range(100)]
    groups = by_length(lengths, overhead=overhead)
    assert sorted(index for group in groups for index in group) == list(range(100))
    assert all(lengths[group[-1]] == max(lengths[index] for index in group) for group in groups)


def test_texts_of_one_length_share_one_pass() -> None:
    assert by_length([7] * 64, overhead=0) == [list(range(64))]


def test_a_long_text_does_not_lengthen_the_short_ones() -> None:
    assert by_length([200, 5, 6, 5], overhead=64) == [[1, 3, 2], [0]]


def test_where_a_pass_is_expensive_padding_is_accepted() -> None:
    assert by_length([200, 5, 6, 5], overhead=4096) == [[1, 3, 2, 0]]


def test_no_group_pads_more_than_a_pass_costs() -> None:
    lengths = list(range(2, 120))
    for group in by_length(lengths, overhead=64):
        assert len(group) * lengths[group[-1]] - sum(lengths[index] for index in group) <= 64


@pytest.mark.parametrize("seed", range(20))
def test_the_groups_are_near_the_best_there_are(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [min(256, int(chance.lognormvariate(3, 0.8)) + 2) for _ in range(chance.randrange(1, 65))]
    assert cost(lengths, by_length(lengths, overhead=64), 64) <= 1.2 * least_cost(lengths, 64)


def test_nothing_makes_no_group() -> None:
    assert by_length([], overhead=64) == []
