"""Which texts of a batch share a forward pass, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Sequence


def by_length(lengths: Sequence[int], *, overhead: int) -> list[list[int]]:
    """Positions of `lengths` (tokens a text) in groups of similar length, shortest first.

    A forward pass costs as much as its padded tokens plus `overhead` tokens; a group ends where going on would add more
    padding than a pass of its own costs.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        if groups and (len(groups[-1]) + 1) * length - tokens - length <= overhead:
            groups[-1].append(index)
            tokens += length
        else:
            groups.append([index])
            tokens = length
    return groups
