"""The recurrent state of a model as one vector, at many places of many texts.

**In:** a model, rows of ids.
**Out:** all numbers of its state, h and c of all layers, after some of the ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lmcli.evaluation.probes.sampling import Places
from lmcli.evaluation.probes.stored.ridge import States
from lmcli.evaluation.state_batches import Ids, advance, padded, read_on, skip
from lmcli.models.base import LanguageModel, State

AT_ONCE = 256
"""rows read side by side"""


def is_recurrent(model: LanguageModel) -> bool:
    """Whether the state is a vector of numbers for each sequence, not a record of its tokens."""
    state = model.initial_state(1)
    return bool(state) and all(p.dim() == 2 and p.is_floating_point() for p in state)


def vectors(state: State) -> States:
    """Shapes: L x (B, H) -> (B, L H)."""
    table: States = torch.cat(list(state), dim=1).float().numpy()
    return table


@torch.inference_mode()
def states_along(model: LanguageModel, rows: Sequence[Ids], stride: int) -> tuple[States, Places]:
    """The state after every `stride` tokens of each row, and which row and token that is.

    Shapes: -> (N, D), (N, 2).
    """
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
    found, places = list[States](), list[Places]()
    for begin in range(0, len(rows), AT_ONCE):
        some = np.array(order[begin : begin + AT_ONCE])
        tokens = padded([rows[n] for n in some], model.start_id)
        lengths = np.array([len(rows[n]) for n in some])
        state = model.initial_state(len(some))
        for end in range(stride, tokens.shape[1] + 1, stride):
            state = skip(model, tokens[:, end - stride : end], state)
            there = np.flatnonzero(lengths >= end)
            found.append(vectors(state)[there])
            places.append(np.stack([some[there], np.full(len(there), end - 1)], axis=1))
    return np.concatenate(found), np.concatenate(places)


def states_after(
    model: LanguageModel, before: Sequence[Ids], rests: Sequence[Sequence[Ids]]
) -> list[States]:
    """The states after each row of each of `rests`, all of which come after the same texts.

    Shapes: -> (B, D) for each of the rests.
    """
    width = max(1, *map(len, before), 1)
    read = np.full((len(before), width), model.start_id, np.int64)
    for row, ids in zip(read, before, strict=True):
        row[width - len(ids) :] = ids  # a model forgets what comes before a start id
    state = read_on(model, torch.from_numpy(read), model.initial_state(len(before)))
    return [vectors(advance(model, rest, state)) for rest in rests]
