# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What frames without people look like: taught to the head that lets the decoder of a rare task rest.

A logistic regression on the pooled maps of the encoder, of the network as it is, dense and under
sets of its gates.  A missed person is worse than a decoder that runs for nothing: where the line
lies is chosen so that hardly any is missed in frames that the regression has not seen.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.lite import RARE
from adamtl_ros.network.lite_network import extremes
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.lite_network import resized
from adamtl_ros.tasks import IGNORE
from adamtl_ros.training.pictures import Pictures
from adamtl_ros.training.pictures import UNKNOWN
from adamtl_ros.training.worth import sample

LARGE = 0.01
"""Share of the picture from which on something must not be missed."""

MISSED = 0.005
"""Share of the frames with something that large in which the head may miss it."""

MARGIN = 1.0
"""Of the logarithm of the odds: new frames differ more than one part of the old from another."""

SURE = 200
"""How likely, of 255, a pixel of a picture is of a person from which on it counts as one."""

FOLDS = 5
"""Parts of the frames, each of which is judged by a regression on the others."""

DECAY = 0.01
"""Weight of the squared coefficients, of features of deviation 1."""

SMALL_WEIGHT = 0.3
"""How much a frame counts in which there is something, but smaller."""


@torch.no_grad()
def look(
        network: LiteNetwork, frames: Iterable[Mapping[str, Tensor]], sets: int,
        seed: int = 0, bfloat16: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """
    Return what the head sees, (N, 1 + sets, 2 C), and the share of the picture with something (N).

    frames: labels as the readers give them with a first axis of 1.  Each runs dense and under sets
    of gates, these at any of the sizes that frames may have.
    """
    rng = np.random.default_rng(seed)
    device = next(network.parameters()).device
    network.eval()
    seen, shares = [], []
    for frame in frames:
        label = frame[RARE]
        shares.append(float(((label != 0) & (label != IGNORE)).float().mean()))
        gates = torch.from_numpy(np.concatenate((
            np.ones((1, len(network.config.gated)), np.float32),
            sample(network, sets, rng)))).to(device)
        image = network.inputs(frame['image'].to(device))
        sizes = network.config.at((image.shape[2], image.shape[3])).sizes
        places = [0, *rng.integers(len(sizes), size=sets)]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            seen.append(torch.cat([
                extremes(network.taps(resized(image, sizes[place]), row[None])[2:])
                for place, row in zip(places, gates)]).cpu().numpy())
    return np.stack(seen), np.array(shares)


def pictured(
        pictures: Pictures, size: tuple[int, int], seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield pictures of a (height, width), with what is surely of a person as the label."""
    rng = np.random.default_rng(seed)
    for index in range(len(pictures)):
        frame = pictures.read(index, rng)
        person = frame['person']
        label = np.where(person > SURE, 1, 0).astype(np.uint8)
        # Of a picture in which something may be a person, neither is known.
        if label.any() or (person == UNKNOWN).mean() <= LARGE:
            image = cv2.resize(frame['image'], size[::-1], interpolation=cv2.INTER_AREA)
            yield {'image': torch.from_numpy(image)[None], RARE: torch.from_numpy(label)[None]}


def fit(network: LiteNetwork, seen: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    """
    Teach the head what `look` saw.

    Returns, of frames that a regression has not seen: `missed`, the share of those with something
    LARGE, and `spared`, of those with nothing, whose decoder does not run.  ValueError: fewer than
    FOLDS frames of either.
    """
    large, nothing = shares > LARGE, shares == 0
    if min(large.sum(), nothing.sum()) < FOLDS:
        raise ValueError(
            f'presence: {large.sum()} frames have {RARE} on more than {LARGE:.0%} of the picture '
            f'and {nothing.sum()} have none: at least {FOLDS} of each are needed')
    # Neighbours, as of a clip, lie in one fold.
    folds = np.arange(len(seen)) * FOLDS // len(seen)
    scores = np.empty(seen.shape[:2])
    for fold in range(FOLDS):
        weight, bias = _regression(seen[folds != fold], shares[folds != fold])
        scores[folds == fold] = seen[folds == fold] @ weight + bias
    limit = float(np.quantile(scores[large], MISSED, method='lower'))
    weight, bias = _regression(seen, shares)
    with torch.no_grad():
        network.presence.weight.copy_(torch.from_numpy(weight)[None])
        network.presence.bias.fill_(bias - limit + MARGIN)
    return {'missed': float((scores[large] < limit).mean()),
            'spared': float((scores[nothing] < limit).mean())}


def _regression(seen: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weight (2 C) and bias of the logarithm of the odds that there is something."""
    x = torch.from_numpy(seen).double().flatten(0, 1)
    mean, scale = x.mean(0), 1 / x.std(0).clamp(min=1e-3)
    x = (x - mean) * scale
    share = torch.from_numpy(shares).repeat_interleave(seen.shape[1])
    target = (share > 0).double()
    counts = torch.where((share > 0) & (share <= LARGE), SMALL_WEIGHT, 1.0).double()
    weight = torch.zeros(x.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn='strong_wolfe')

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(
            x @ weight + bias, target, counts) + DECAY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = (weight * scale).detach()
    return found.float().numpy(), float(bias.detach() - (found * mean).sum())
