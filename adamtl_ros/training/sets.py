# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Sets of blocks in training: which ones frames run under, and what the policy learns of them.

Each frame runs dense and under a set of gates at once.  How much its errors rise is what the
policy has to predict, so it learns on the way; and the sets are more and more those that it
chooses, for mean costs of all kinds, so that the network becomes good at what it will meet.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.network.lite_network import features
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.training import lite
from adamtl_ros.training import worth

RANDOM_UNTIL = 0.12
"""Share of the training until which sets are drawn at random: a new policy knows nothing yet."""

REDUCED = 0.72
"""In how many of the steps sets run at one of the smaller sizes."""

CHOSEN = 0.3, 0.75
"""Of the frames, how many get what the policy chooses, at first and at most."""

FLIPPED, FLIPS = 0.35, 0.08
"""In how many of those gates are changed, each with what probability: near sets count too."""

COSTS = 0.5, 1.0
"""The mean costs for which sets are chosen, of what all gates cost at the size."""

CLOSED, OPEN = 0.03, 0.35
"""Share of the frames with every gate closed, the least that there is, and with all open."""

PRICES = np.concatenate(([0.0], np.geomspace(1e-4, 2.0, 28)))
"""Tried in each batch, to find the price of a mean cost."""

SLOWNESS = 0.98
"""How slowly the means follow to which errors and features are compared."""


class Sets:
    """All sets of gates of a network with a policy, and what is known of its errors."""

    def __init__(self, network: LiteNetwork) -> None:
        config, cost = network.config, network.cost
        config.check_policy()
        self._network = network
        device = next(network.parameters()).device
        count = len(config.gated)
        opened = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1
        opened = np.unique(worth.valid(network, opened), axis=0)
        macs = np.array([block.macs for block in config.gated], dtype=np.float64)
        spent = opened @ macs + cost.fixed(config.tasks)
        self._opened = torch.from_numpy(opened).to(device)
        self._closed = 1 - self._opened.float()
        self._cost = torch.from_numpy(spent / cost.dense(config.tasks)).float().to(device)
        self._prices = torch.from_numpy(PRICES).float().to(device)
        tasks = len(config.tasks)
        # The mean error of each task, dense, and how far rises are apart; NaN: not known yet.
        self.state = torch.full((2, tasks), torch.nan, device=device)
        # A policy that has learned before has seen frames.
        self.begun = bool(network.policy.mean.any())
        self._random_until = 0.0 if self.begun else RANDOM_UNTIL

    def place(self, rng: np.random.Generator) -> int:
        """Return the number of the size, of config.sizes, at which a step runs under sets."""
        smaller = len(self._network.config.reduced)
        reduced = rng.random() < REDUCED
        return int(rng.integers(smaller)) + 1 if smaller and reduced else 0

    @torch.no_grad()
    def draw(
            self, image: Tensor, done: float, rng: np.random.Generator, place: int = 0) -> Tensor:
        """
        Return bool (B, gates) for a batch of inputs, at a share `done` of the training.

        place: of their size, see above.
        """
        network, count = self._network, len(image)
        gates = worth.sample(network, count, rng) > 0
        gates[rng.random(count) < CLOSED] = False
        if place:
            # In full size that is the dense network once more.
            gates[rng.random(count) < OPEN] = True
        if done < self._random_until:
            return torch.from_numpy(gates).to(image.device)
        least, most = CHOSEN
        goal = rng.uniform(*COSTS, count).astype(np.float32)
        chosen = self._choose(self._seen(image), torch.from_numpy(goal).to(image.device))
        flips = (rng.random(gates.shape) < FLIPS) & (rng.random((count, 1)) < FLIPPED)
        taken = rng.random((count, 1)) < min(most, least + done)
        gates = worth.valid(network, np.where(taken, chosen.cpu().numpy() ^ flips, gates))
        return torch.from_numpy(gates).to(image.device)

    @torch.no_grad()
    def _seen(self, image: Tensor) -> Tensor:
        encoder = self._network.encoder
        training = encoder.training
        # Looking is no reason for norms to follow.
        encoder.eval()
        seen = features(self._network.look(image))
        encoder.train(training)
        return seen

    def _choose(self, seen: Tensor, goal: Tensor) -> Tensor:
        """Return the sets that are best at the prices at which this batch costs each goal."""
        alone, pairs = worth.parts(self._network, seen)
        # The mean over the tasks, as the policy has it.
        alone, pairs = alone.mean(1), pairs.mean(0)
        rise = alone @ self._closed.T + ((self._closed @ pairs) * self._closed).sum(1)
        means = torch.stack([
            self._cost[(rise + price * self._cost).argmin(1)].mean() for price in self._prices])
        means, prices = means.flip(0), self._prices.flip(0)
        place = torch.searchsorted(means, goal).clamp(1, len(means) - 1)
        low, high = means[place - 1], means[place]
        share = ((goal - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        price = torch.lerp(prices[place - 1], prices[place], share)
        return self._opened[(rise + price[:, None] * self._cost).argmin(1)]

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep what two closed gates and smaller sizes add at 0 or more; see worth.fit."""
        for buffer in lite.measured(self._network):
            buffer.clamp_(min=0)

    def _follow(self, row: int, now: Tensor) -> Tensor:
        """Let a mean follow what is now, where that is known; returns it."""
        old = self.state[row]
        new = torch.where(torch.isnan(old), now, torch.lerp(now, old, SLOWNESS))
        self.state[row] = torch.where(torch.isnan(now), old, new)
        return self.state[row]

    def lesson(
            self, image: Tensor, gates: Tensor, outputs: Sequence[Mapping[str, Tensor]],
            frames: Mapping[str, Tensor], class_weights: Mapping[str, Tensor],
            place: int = 0) -> Tensor:
        """
        Return the policy's loss: how far the rises are from what it expected of them.

        image: inputs (B, 3, h, w), of the size number `place`, gates (B, gates), outputs dense
        and under them, labels.
        """
        network, policy = self._network, self._network.policy
        with torch.no_grad():
            before, after = (worth.errors(
                {task: value.detach() for task, value in each.items()}, frames, class_weights)
                for each in outputs)
            seen = self._seen(image)
            if not self.begun:
                policy.mean.copy_(seen.mean(0))
                policy.scale.copy_(1 / seen.std(0).clamp(min=1e-4))
            self.begun = True
            policy.mean.lerp_(seen.mean(0), 1 - SLOWNESS)
            policy.scale.lerp_(1 / seen.std(0).clamp(min=1e-4), 1 - SLOWNESS)
            mean = self._follow(0, torch.nanmean(before, 0))
            rises = (after - before) / mean
            spread = self._follow(1, torch.nanmean(rises.square(), 0).sqrt().clamp(min=1e-3))
            # Where nothing is labelled nothing is to be learned, not even that it is no number.
            known = torch.isfinite(rises / spread)
            goal = torch.where(known, rises / spread, 0.0)
            scale = torch.where(known, 1 / spread, 0.0)
        expected = worth.predicted(network, seen, (~gates).float()[:, None])[:, 0]
        if place:
            expected = expected + policy.smaller[:, place - 1]
        error = functional.smooth_l1_loss(expected * scale, goal, reduction='none')
        return error.sum() / known.sum().clamp(min=1)
