# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
The training stages: 'static' trains the dense network, 'adaptive' its policy along with it.

In the adaptive stage every step draws a budget; half of the batch runs dense, so that the static
network stays good, the other half under the policy.  The loss adds the squared distance between
the budget and the mean cost, over the batch, of what the policy would choose by itself.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
import math
import os
from pathlib import Path
import sys
import time

import cv2
import numpy as np
import torch
from torch import Tensor
import yaml

from adamtl_ros.datasets.egorooms import EgoRooms
from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.runtime.preprocess import normalise
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS
from adamtl_ros.training.losses import total_loss


@dataclass(frozen=True)
class TrainConfig:
    """
    One training run.

    data: folder of the training split.  out: the weights file; its training state lies beside it.
    stage: 'static' or 'adaptive'.  start: weights to begin with ('' for none).
    steps, batch, rate (peak learning rate), warmup (steps).  decay: AdamW weight decay.
    budgets: range from which the adaptive stage draws.  cost_weight: of the budget term.
    save_every: steps between checkpoints.  threads: 0 leaves it to torch.
    bfloat16: autocast; worth it only where the processor computes in it natively.
    """

    data: str = ''
    out: str = 'glasses.safetensors'
    preset: str = 'glasses'
    stage: str = 'static'
    start: str = ''
    steps: int = 1000
    batch: int = 16
    rate: float = 1e-3
    policy_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.05
    budgets: tuple[float, float] = (0.3, 1.0)
    cost_weight: float = 20.0
    save_every: int = 100
    seed: int = 0
    threads: int = 0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError on values that cannot work."""
        if self.preset not in PRESETS:
            raise ValueError(f'preset {self.preset!r}: choose one of {", ".join(PRESETS)}')
        if self.stage not in ('static', 'adaptive'):
            raise ValueError(f'stage {self.stage!r}: choose static or adaptive')
        if self.stage == 'adaptive' and self.batch < 2:
            raise ValueError('the adaptive stage splits the batch: it needs at least 2 frames')
        if not self.data:
            raise ValueError('data is empty: give the folder of the training split, data=FOLDER')
        if not 0 < self.budgets[0] <= self.budgets[1] <= 1:
            raise ValueError(f'budgets {self.budgets}: give two ascending numbers in (0, 1]')


def read_config(arguments: Sequence[str]) -> TrainConfig:
    """Read `CONFIG.yaml key=value ...`; ValueError names what is wrong."""
    path, *pairs = arguments
    with open(path, encoding='utf-8') as file:
        values = yaml.safe_load(file) or {}
    if not isinstance(values, dict):
        raise ValueError(f'{path}: expected a mapping of settings')
    for pair in pairs:
        key, equals, text = pair.partition('=')
        if not equals:
            raise ValueError(f'{pair!r}: settings are given as key=value')
        values[key] = yaml.safe_load(text)
    known: dict[str, Callable] = {
        item.name: type(item.default) for item in fields(TrainConfig)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f'unknown setting {key!r}: the settings are {", ".join(known)}')
        kind = known[key]
        try:
            values[key] = tuple(float(v) for v in value) if kind is tuple else kind(value)
        except (TypeError, ValueError):
            raise ValueError(f'{key}={value!r}: expected {kind.__name__}') from None
    return TrainConfig(**values)


class Batches:
    """Random augmented batches from a corpus that is held decoded in memory."""

    def __init__(self, data: EgoRooms, batch: int, seed: int) -> None:
        self.data = data
        self.batch = batch
        self.seed = seed
        if batch > len(data):
            raise ValueError(f'batch {batch}: {data.root} has fewer frames ({len(data)})')
        self.frames = [data[index] for index in range(len(data))]

    def draw(self, step: int) -> dict[str, Tensor]:
        """Return the batch of a step: each epoch sees every frame once, in an order of its own."""
        per_epoch = len(self.frames) // self.batch
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.frames))
        rng = np.random.default_rng((self.seed, epoch, position))
        chosen = order[position * self.batch:(position + 1) * self.batch]
        frames = [augment(self.frames[index], rng) for index in chosen]
        stacked = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
        if 'depth' in stacked:
            # torch does little with 16-bit unsigned numbers.
            stacked['depth'] = stacked['depth'].astype(np.int32)
        return {key: torch.from_numpy(value) for key, value in stacked.items()}


def augment(frame: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirror, zoom in (up to 1.3) and change brightness, contrast and colour balance."""
    frame = dict(frame)
    if rng.random() < 0.5:
        frame = {key: value[:, ::-1] for key, value in frame.items()}
        if 'normals' in frame:
            normals = frame['normals'].copy()
            valid = normals.any(-1)
            normals[..., 0] = np.where(valid, 255 - normals[..., 0], 0)
            frame['normals'] = normals
    height, width = frame['image'].shape[:2]
    if rng.random() < 0.5:
        zoom = rng.uniform(1.0, 1.3)
        rows, columns = round(height / zoom), round(width / zoom)
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        for key, value in frame.items():
            part = np.ascontiguousarray(value[top:top + rows, left:left + columns])
            how = cv2.INTER_LINEAR if key == 'image' else cv2.INTER_NEAREST
            frame[key] = cv2.resize(part, (width, height), interpolation=how)
        if 'depth' in frame:
            # The same picture from a camera of the nominal focal length is this much nearer.
            frame['depth'] = (frame['depth'] / zoom).astype(np.uint16)
    gain = rng.uniform(0.6, 1.4) * rng.uniform(0.85, 1.15, 3)
    image = frame['image'].astype(np.float32)
    mean = image.mean()
    image = ((image - mean) * rng.uniform(0.7, 1.3) + mean) * gain
    frame['image'] = np.clip(image, 0, 255).astype(np.uint8)
    return {key: np.ascontiguousarray(value) for key, value in frame.items()}


def class_weights(frames: Sequence[dict[str, np.ndarray]], task: str, classes: int) -> Tensor:
    """Return (classes,) loss weights: inverse square root of the frequency, mean 1, at most 5."""
    counts = np.zeros(256)
    for frame in frames:
        counts += np.bincount(frame[task].reshape(-1), minlength=256)
    counts[IGNORE] = 0
    share = counts[:classes] / counts.sum()
    weights = 1 / np.sqrt(np.maximum(share, 1e-4))
    weights /= (weights * share).sum()
    return torch.tensor(np.minimum(weights, 5.0), dtype=torch.float32)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the factor on the peak rates: linear warm-up, then half a cosine down to 1 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Trainer:
    """A run that resumes from the state file beside its weights."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        if config.start:
            self.network = checkpoint.load(config.start)
        else:
            self.network = AdaMTL(PRESETS[config.preset])
        self.tasks = self.network.config.tasks
        print(f'reading {config.data} ...', flush=True)
        self.batches = Batches(EgoRooms(config.data, self.tasks), config.batch, config.seed)
        self.class_weights = {
            task: class_weights(self.batches.frames, task, self.network.config.outputs[task])
            for task in self.tasks if TASKS[task].kind == 'classes'}
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.rate)
        self.step = 0
        self.state_path = Path(config.out).with_suffix('.state.pt')
        if self.state_path.is_file():
            state = torch.load(self.state_path, weights_only=True)
            if state['stage'] != config.stage:
                raise ValueError(
                    f'{self.state_path} belongs to the stage {state["stage"]!r}: remove it or '
                    'choose another out=')
            self.network.load_state_dict(state['network'])
            self.optimizer.load_state_dict(state['optimizer'])
            self.step = state['step']
            print(f'resuming at step {self.step}', flush=True)

    def _groups(self) -> list[dict[str, object]]:
        groups = []
        policy = set(self.network.policy.parameters())
        for rate, chosen in ((self.config.rate, False), (self.config.policy_rate, True)):
            if chosen and self.config.stage == 'static':
                continue
            for decays in (True, False):
                parameters = [
                    p for p in self.network.parameters()
                    if (p in policy) == chosen and (p.dim() > 1 and not chosen) == decays]
                groups.append({
                    'params': parameters, 'lr': rate, 'peak': rate,
                    'weight_decay': self.config.decay if decays else 0.0})
        return groups

    def loss(self, frames: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch and the figures to report."""
        image = normalise(frames['image'])
        if self.config.stage == 'static':
            outputs = self.network(image)
            return total_loss(outputs, frames, self.class_weights)
        budget = np.random.default_rng((self.config.seed, step)).uniform(*self.config.budgets)
        half = len(image) // 2
        gated, wish, spent = self.network.forward_policy(
            image[:half], torch.full((half,), float(budget)), self.tasks)
        loss, report = total_loss(
            gated, {k: v[:half] for k, v in frames.items()}, self.class_weights)
        dense_loss, _ = total_loss(
            self.network(image[half:]), {k: v[half:] for k, v in frames.items()},
            self.class_weights)
        cost = (wish.mean() - budget) ** 2
        report |= {'dense': float(dense_loss.detach()), 'budget': float(budget),
                   'wish': float(wish.detach().mean()), 'spent': float(spent.mean())}
        return loss + dense_loss + self.config.cost_weight * cost, report

    def advance(self) -> dict[str, float]:
        """Train one step; returns the figures of its batch."""
        config = self.config
        self.network.train()
        factor = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group['lr'] = group['peak'] * factor
        frames = self.batches.draw(self.step)
        # Noise depends on the step alone, so that a resumed run takes the same path.
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        with torch.autocast('cpu', torch.bfloat16, enabled=config.bfloat16):
            loss, report = self.loss(frames, self.step)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f'the loss is {float(loss.detach())} at step {self.step}: lower rate= and resume')
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        return {**report, 'loss': float(loss.detach())}

    def run(self) -> None:
        """Train to the last step; writes weights and state every `save_every` steps."""
        config = self.config
        started, mean = time.monotonic(), {}  # type: float, dict[str, float]
        while self.step < config.steps:
            report = self.advance()
            mean = {k: 0.95 * mean.get(k, v) + 0.05 * v for k, v in report.items()}
            if self.step % 20 == 0:
                rate = 20 * config.batch / (time.monotonic() - started)
                started = time.monotonic()
                print(f'step {self.step}/{config.steps} {rate:.1f} frames/s '
                      + ' '.join(f'{k} {v:.3f}' for k, v in mean.items()), flush=True)
            if self.step % config.save_every == 0 or self.step == config.steps:
                self.save()

    def save(self) -> None:
        """Write the training state, then the weights, each in one move."""
        self.state_path.parent.mkdir(parents=True, exist_ok=True)
        part = self.state_path.with_suffix('.part')
        torch.save({'network': self.network.state_dict(), 'step': self.step,
                    'optimizer': self.optimizer.state_dict(), 'stage': self.config.stage}, part)
        os.replace(part, self.state_path)
        out = Path(self.config.out)
        part = out.with_suffix('.part')
        checkpoint.save(part, self.network, notes={
            'licence': 'Apache-2.0', 'trained': f'{self.config.stage} stage, step {self.step}'})
        os.replace(part, out)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl train CONFIG [key=value ...]`; 2 on bad settings."""
    parser = argparse.ArgumentParser(prog='adamtl train', description=__doc__)
    parser.add_argument('config', help='YAML file of settings')
    parser.add_argument('setting', nargs='*', help='key=value, each over the file')
    arguments = parser.parse_args(argv)
    try:
        config = read_config([arguments.config, *arguments.setting])
        trainer = Trainer(config)
    except (ValueError, OSError) as error:
        print(f'adamtl train: {error}', file=sys.stderr)
        return 2
    trainer.run()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
