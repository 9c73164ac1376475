# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What blocks are worth: measured by leaving sets of them out, and taught to the policy.

For frames with labels the network runs dense and under many sets of gates; how much each task's
error rises, relative to its mean over all frames, is what `gating.subsets` then has to predict
from a look at the frame.  Nothing but the policy changes, and all of it fits into memory, so that
it is found in minutes.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.gating.subsets import BlockPolicy
from adamtl_ros.gating.subsets import BUDGETS
from adamtl_ros.network.lite import LiteCost
from adamtl_ros.network.lite_network import features
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.lite_network import resized
from adamtl_ros.network.lite_network import upsample
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from adamtl_ros.training import lite
from adamtl_ros.training.losses import normals_of

HELD_OUT = 0.2
"""Share of the frames, the last ones, that tell when to stop."""

PATIENCE = 20
"""Looks at the held-out frames, without a gain, after which fitting ends."""


@dataclass
class Measured:
    """
    What was measured: N frames, K sets of G gates for each, T tasks.

    seen (N, F): what the policy sees.  closed (N, K, G), 0 or 1.  rises (N, K, T): the error less
    the dense network's, over the mean of that.
    """

    seen: np.ndarray
    closed: np.ndarray
    rises: np.ndarray

    def joined(self, other: 'Measured') -> 'Measured':
        """Return both, of the same frames, as one."""
        return Measured(self.seen, np.concatenate((self.closed, other.closed), 1),
                        np.concatenate((self.rises, other.rises), 1))


def errors(
        outputs: Mapping[str, Tensor], frame: Mapping[str, Tensor],
        class_weights: Mapping[str, Tensor]) -> Tensor:
    """
    Return (B, tasks), how far outputs (B, channels, H, W) are from labels, of B frames or of one.

    As the metrics have it, where they can be told for a frame: absolute difference of saliency,
    angle of normals, half the squared difference of canonical metres (a root of a mean halves a
    relative change), weighted cross-entropy of classes and edges.  NaN where nothing is labelled.
    """
    found = []
    for task, value in outputs.items():
        kind, label = TASKS[task].kind, frame[task]
        if task != 'edges':
            label = label[:, ::2, ::2]
        factor = label.shape[1] // value.shape[2]
        value = value.float()
        value = upsample(value, factor) if factor > 1 else value
        many = label.expand(len(value), *label.shape[1:])
        if kind == 'classes':
            error = functional.cross_entropy(
                value, many.long(), class_weights.get(task), ignore_index=IGNORE,
                reduction='none')
            valid = many != IGNORE
        elif task == 'edges':
            valid, target = many != IGNORE, (many == 1).float()
            error = functional.binary_cross_entropy_with_logits(
                value[:, 0], target, 1 + 3 * target, reduction='none')
        elif kind == 'map':
            valid = torch.ones_like(many, dtype=torch.bool)
            error = (value[:, 0].sigmoid() - many.float() / 255).abs()
        elif kind == 'normals':
            target, valid = normals_of(many)
            error = functional.cosine_similarity(value, target, 1).clamp(-1, 1).acos()
        else:
            metres, valid = many.float() / 1000, many > 0
            error = (value[:, 0].clamp(-3, 4).exp() - metres).square() / 2
        count = valid.flatten(1).sum(1)
        total = (error * valid).flatten(1).sum(1)
        found.append(torch.where(count > 0, total / count.clamp(min=1), torch.nan))
    return torch.stack(found, 1)


def sample(
        network: LiteNetwork, count: int, rng: np.random.Generator,
        likely: np.ndarray | None = None) -> np.ndarray:
    """
    Return (count, G) gates, 0 or 1: of any share, or near some that are likely, (n, G).

    Without the level at stride 32 none of its blocks is open.
    """
    config = network.config
    gates = rng.random((count, len(config.gated))) < rng.random((count, 1))
    gates[:, -1] = rng.random(count) < 0.8
    if likely is not None and len(likely):
        near = rng.random(count) < 0.7
        chosen = likely[rng.integers(len(likely), size=count)]
        changed = chosen ^ (rng.random(chosen.shape) < 0.12)
        gates = np.where(near[:, None], changed, gates)
    return valid(network, gates).astype(np.float32)


def valid(network: LiteNetwork, gates: np.ndarray) -> np.ndarray:
    """Return gates (n, G), bool, without what cannot run: blocks of a level that is left out."""
    config = network.config
    inside = np.array([block.stage >= config.coarse for block in config.gated])
    return np.where(inside & ~gates[:, -1:].astype(bool), False, gates)


@torch.no_grad()
def measure(
        network: LiteNetwork, frames: Iterable[Mapping[str, Tensor]], sets: int,
        class_weights: Mapping[str, Tensor], seed: int = 0,
        likely: np.ndarray | None = None, bfloat16: bool = False) -> Measured:
    """
    Run each frame, labels as the readers give them with a first axis of 1, dense and under sets.

    likely: sets (n, G) near which most of the sets lie.  ValueError: a task without labels.
    """
    rng = np.random.default_rng(seed)
    device = next(network.parameters()).device
    network.eval()
    seen, closed, found = [], [], []
    for frame in frames:
        gates = np.concatenate((
            np.ones((1, len(network.config.gated)), np.float32),
            sample(network, sets, rng, likely)))
        labels = {task: frame[task].to(device) for task in network.config.tasks}
        image = network.inputs(frame['image'].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            look: list[Tensor] = []
            image = image.expand(len(gates), -1, -1, -1).contiguous(
                memory_format=torch.channels_last)
            taps = network.taps(image, torch.from_numpy(gates).to(device), look)
            outputs = network.decode(taps, network.config.tasks)
        seen.append(features(look[0][:1])[0].cpu().numpy())
        closed.append(1 - gates[1:])
        found.append(errors(outputs, labels, class_weights).cpu().numpy())
    values = np.stack(found)
    for number, task in enumerate(network.config.tasks):
        if np.isnan(values[:, 0, number]).all():
            raise ValueError(f'none of the {len(values)} frames has a label of {task}')
    dense = np.nanmean(values[:, 0], 0)
    rises = (values[:, 1:] - values[:, :1]) / dense
    return Measured(np.stack(seen), np.stack(closed), np.nan_to_num(rises).astype(np.float32))


@torch.no_grad()
def measure_sizes(
        network: LiteNetwork, frames: Iterable[Mapping[str, Tensor]],
        class_weights: Mapping[str, Tensor], bfloat16: bool = False) -> Tensor:
    """
    Return (tasks, sizes) how much more the error is at smaller inputs, every gate open.

    frames: as for `measure`.
    """
    config = network.config
    device = next(network.parameters()).device
    network.eval()
    found = []
    for frame in frames:
        labels = {task: frame[task].to(device) for task in config.tasks}
        image = network.inputs(frame['image'].to(device))
        size = image.shape[2], image.shape[3]
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            dense = network(image)
            runs = [dense, *(
                lite.enlarged(network(resized(image, ran)), ran, size, dense)
                for ran in config.at(size).sizes[1:])]
        found.append(torch.stack([errors(run, labels, class_weights) for run in runs]))
    mean = torch.cat(found, 1).nanmean(1)
    return torch.nan_to_num((mean[1:] / mean[0] - 1).clamp(min=0)).T


@torch.no_grad()
def look(network: LiteNetwork, frames: Iterable[Mapping[str, Tensor]]) -> np.ndarray:
    """Return what the policy sees, (N, F), of frames in batches as the readers give them."""
    device = next(network.parameters()).device
    network.eval()
    return np.concatenate([
        features(network.look(network.inputs(frame['image'].to(device)))).cpu().numpy()
        for frame in frames])


def parts(network: LiteNetwork, seen: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return what the policy expects of seen (N, F): the rise by gate alone, and of pairs beyond.

    (N, T, G) and (T, G, G), of which the part above the diagonal counts.
    """
    policy, config = network.policy, network.config
    hidden = torch.relu(policy.first((seen - policy.mean) * policy.scale))
    late = policy.second(hidden).view(len(seen), len(config.tasks), -1)
    logits = policy.bias + functional.pad(late, (config.early, 0))
    return functional.softplus(logits), torch.triu(policy.pairs, 1)


def predicted(network: LiteNetwork, seen: Tensor, closed: Tensor) -> Tensor:
    """Return the rise (N, K, T) that the policy expects of seen (N, F) and closed (N, K, G)."""
    alone, pairs = parts(network, seen)
    return torch.einsum('nkg,ntg->nkt', closed, alone) + torch.einsum(
        'nkg,tgh,nkh->nkt', closed, pairs, closed)


def fit(
        network: LiteNetwork, measured: Measured, *, steps: int = 3000, rate: float = 3e-3,
        decay: float = 0.02, seed: int = 0) -> dict[str, float]:
    """
    Teach the policy what was measured; returns the share of the variance that it explains.

    `fixed` is that of a policy that sees nothing, `policy` that of the one that is kept, both of
    the held-out frames.
    """
    torch.manual_seed(seed)
    policy = network.policy
    count = len(measured.seen)
    cut = count - max(int(HELD_OUT * count), 1)
    seen, closed, rises = (
        torch.from_numpy(part).float() for part in (
            measured.seen, measured.closed, measured.rises))
    with torch.no_grad():
        policy.mean.copy_(seen[:cut].mean(0))
        policy.scale.copy_(1 / seen[:cut].std(0).clamp(min=1e-4))
    policy.pairs.requires_grad_(True)
    # A few frames rise a hundredfold: they count, but do not decide.
    limit = rises[:cut].abs().flatten(0, 1).quantile(0.995, 0)
    goal = rises.clamp(-limit, limit)
    spread = goal[:cut].flatten(0, 1).std(0).clamp(min=1e-6)

    def loss(rows: Tensor | slice) -> Tensor:
        error = (predicted(network, seen[rows], closed[rows]) - goal[rows]) / spread
        return error.square().mean()

    shares = {}
    for name, parts in (('fixed', [policy.bias, policy.pairs]),
                        ('policy', [*policy.parameters(), policy.pairs])):
        optimizer = torch.optim.AdamW(
            [{'params': [part for part in parts if part.ndim == 2 and part is not policy.bias],
              'weight_decay': decay, 'lr': rate},
             {'params': [policy.bias], 'weight_decay': 0.0, 'lr': 10 * rate},
             {'params': [policy.pairs], 'weight_decay': 0.0, 'lr': rate / 3}])
        if name == 'policy':
            torch.nn.init.normal_(policy.second.weight, std=1e-3)
        best, since, kept = np.inf, 0, {}
        for step in range(steps):
            optimizer.zero_grad()
            loss(torch.randint(cut, (256,))).backward()
            optimizer.step()
            with torch.no_grad():
                # Two closed gates never cost less than each of them by itself: so the best set
                # within a limit leaves nothing of it that would pay for one more block.
                policy.pairs.clamp_(min=0)
            if step % 50 == 49:
                with torch.no_grad():
                    now = float(loss(slice(cut, None)))
                since += 1
                if now < best - 1e-5:
                    best, since = now, 0
                    kept = {key: value.clone() for key, value in policy.state_dict().items()}
                if since >= PATIENCE:
                    break
        policy.load_state_dict(kept)
        total = float((((goal[cut:]) / spread - (goal[cut:] / spread).mean((0, 1))) ** 2).mean())
        shares[name] = 1 - best / total
    policy.pairs.requires_grad_(False)
    policy.pairs.grad = None
    settle(network, measured.seen)
    return shares


@torch.no_grad()
def settle(network: LiteNetwork, seen: np.ndarray) -> None:
    """Set what follows from the frames seen (N, F): the typical rise, and the prices."""
    policy = network.policy
    policy.typical.copy_(parts(network, torch.from_numpy(seen))[0].mean(0))
    policy.prices.zero_()
    config, tasks = network.config, network.config.tasks
    dense = network.cost.dense(tasks)
    chooser = BlockPolicy(config, network.cost, network.policy_arrays(), tasks, {})
    costs = [LiteCost(config.at(size)) for size in config.sizes]

    def mean(place: int, price: float) -> float:
        start, cost = chooser.start(place, 1.1, price), costs[place]
        gates = [chooser.finish(start, each, 1.1, price).gates for each in seen]
        macs = np.mean(gates @ np.array([block.macs for block in cost.blocks]))
        return float(macs + cost.fixed(tasks)) / dense

    grid = np.concatenate(([0.0], np.geomspace(1e-4, 30.0, 60)))
    for place in range(len(costs)):
        means = np.array([mean(place, price) for price in grid])
        # Ascending in cost; where all gates may open the price is 0.
        order = np.lexsort((-grid, means))
        policy.prices[place] = torch.from_numpy(
            np.interp(BUDGETS, means[order], grid[order])).float()
    network._choosers.clear()


def choose(
        network: LiteNetwork, seen: Iterable[np.ndarray], price: float, place: int = 0
) -> np.ndarray:
    """Return (N, G) gates, bool, that the policy gives frames of a size at a price."""
    chooser = network.chooser(network.config.input_size, network.config.tasks, {})
    start = chooser.start(place, 1.1, price)
    return np.stack([chooser.finish(start, each, 1.1, price).gates for each in seen])


def likely(network: LiteNetwork, measured: Measured) -> np.ndarray:
    """Return (n, G) gates, bool: the sets that the policy chooses for frames, at many prices."""
    prices = network.policy.prices[0].cpu().numpy()
    rows = measured.seen[::max(len(measured.seen) // 200, 1)]
    chosen = [choose(network, rows, float(price)) for price in np.unique(prices[::2])]
    return np.unique(np.concatenate(chosen), axis=0)
