# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The trainer: from steps, batches and losses to weights, and on from where it was stopped."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import math
from pathlib import Path
import shutil
import signal
import threading
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TimeElapsedColumn
from rich.progress import TimeRemainingColumn
import torch
from torch import Tensor
import torch.distributed as distributed

from adamtl_ros.files import try_folder
from adamtl_ros.files import whole
from adamtl_ros.network import checkpoint
from adamtl_ros.network.kinds import network_of
from adamtl_ros.network.lite_network import features
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.lite_network import resized
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.network.normalise import normalise
from adamtl_ros.tasks import ordered
from adamtl_ros.training import lite
from adamtl_ros.training import worth
from adamtl_ros.training.batches import changed
from adamtl_ros.training.batches import class_weights
from adamtl_ros.training.batches import open_pool
from adamtl_ros.training.batches import StepBatches
from adamtl_ros.training.batches import unchanged
from adamtl_ros.training.begin import begin
from adamtl_ros.training.begin import device_of
from adamtl_ros.training.begin import notes
from adamtl_ros.training.config import TrainConfig
from adamtl_ros.training.losses import distances
from adamtl_ros.training.losses import total_loss
from adamtl_ros.training.objectives import efficiency_loss
from adamtl_ros.training.objectives import gain_loss
from adamtl_ros.training.objectives import open_loss
from adamtl_ros.training.pictures import LABELLED
from adamtl_ros.training.pictures import Pictures
from adamtl_ros.training.sets import Sets

STATE = 5
"""Version of the state file."""

GATED_WEIGHT = 0.5
"""How much the labels count for the gated outputs, beside the dense ones (objective gain)."""

SUBSETS = 0.5
"""How often a step enables only some of the tasks, so that each controller learns its own."""

EXPLORE = 0.3
"""Share of frames that are routed nearly at random: gains must be known off the policy's path."""

VALIDATION_BUDGET = 0.5

LOOKED = 160
"""Frames on which the prices of budgets are found that the weights tell."""

LOG_EVERY = 20


class TrainingError(RuntimeError):
    """Training cannot go on; what was saved stands."""


class Trainer:
    """A run that resumes from the state file beside its weights."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.console = Console(stderr=True, highlight=False)
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.world = distributed.get_world_size() if distributed.is_initialized() else 1
        self.device = device_of(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        # Of either kind: what only one of them has is only asked of that one.
        self.network: Any
        self.network, data = begin(config, self._say)
        self.network.to(self.device)
        self.lite = isinstance(self.network, LiteNetwork)
        self.sets: Sets | None = None
        if config.prices and len(config.prices) != len(self.network.config.depths):
            raise ValueError(
                f'prices={list(config.prices)}: give one for each of '
                f'{len(self.network.config.depths)} stages')
        self.teacher = None
        if config.teacher:
            self.teacher = checkpoint.load(config.teacher).to(self.device)
            self._check_teacher(self.teacher)
        self.tasks = self.network.config.tasks
        size = self.network.config.input_size
        self.batches = StepBatches(
            data, config.sizes or (size,), config.batch, config.seed, self.rank, self.world,
            self.device.type == 'cuda', (
                Pictures(config.pictures), round(config.pictured * config.batch))
            if config.pictures else None)
        self.people: dict[str, Sequence[int]] = {}
        if self.batches.pictures is not None:
            self.batches.pictures.check(self.network.config.classes['semseg'])
            semseg = self.network.config.classes['semseg'].index('person')
            parts = range(1, self.network.config.outputs.get('human_parts', 1))
            self.people = {task: classes for task, classes in (
                ('semseg', [semseg]), ('human_parts', parts)) if task in self.tasks}
        self.validation = []
        if config.val:
            self.validation = list(unchanged(
                open_pool([config.val], self.tasks, 'val', self.network.config.canonical), size,
                config.batch, config.val_frames))
        self.class_weights = {}
        if config.loss != 'paper':
            self.class_weights = {
                task: value.to(self.device) for task, value in
                class_weights(data, self.network.config.outputs).items()}
        policy = [] if self.network.config.policy == 'none' else list(
            self.network.policy.parameters())
        if policy and self.lite:
            policy += lite.measured(self.network)
        if config.stage != 'static' and not policy:
            raise ValueError(
                f'stage={config.stage}: the network has no policy; give it one, '
                'network={policy: task_aware}, or choose stage=static')
        inside = {id(parameter) for parameter in policy}
        rest = [p for p in self.network.parameters() if id(p) not in inside]
        self.clipped = [
            part for part, wanted in ((rest, config.stage != 'open'),
                                      (policy, config.stage != 'static')) if wanted]
        if config.stage == 'open':
            for parameter in rest:
                parameter.requires_grad_(False)
        if self.lite:
            lite.freeze(self.network, config.frozen)
            if self.device.type == 'cpu':
                # On GPUs the gradients of depthwise layers are slow in this format.
                self.network.to(memory_format=torch.channels_last)
            if config.stage == 'adaptive':
                self.sets = Sets(self.network)
                self.looked = list(unchanged(data, size, config.batch, LOOKED))
        groups = self._groups(rest, policy)
        self.peaks = [group.pop('peak') for group in groups]
        self.optimizer = torch.optim.AdamW(
            groups, lr=config.rate, betas=lite.BETAS if self.lite else (0.9, 0.999))
        self.average = None
        if config.ema:
            self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.step, self.best = 0, math.inf
        self.stopping = False
        self.out = Path(config.out)
        self.state_path = self.out.with_suffix('.state.pt')
        if self.state_path.is_file():
            self._resume()

    def _check_teacher(self, teacher: AdaMTL | LiteNetwork) -> None:
        have, need = teacher.config, self.network.config
        if have.kind != need.kind:
            raise ValueError(
                f'teacher={self.config.teacher}: it must be of the same kind as the network, '
                f'{need.kind}, not {have.kind}')
        lacking = [t for t in need.tasks if have.outputs.get(t) != need.outputs[t]]
        if have.input_size != need.input_size or lacking:
            raise ValueError(
                f'teacher={self.config.teacher}: it must have the same input size '
                f'({need.input_size}) and outputs ({need.outputs}) as the network')
        if self.config.pictures and not set(need.tasks) - set(LABELLED):
            raise ValueError(
                f'teacher={self.config.teacher}: pictures label {", ".join(need.tasks)}, '
                'so it has nothing to say: leave it or the pictures out')

    def _groups(self, rest: list[Any], policy: list[Any]) -> list[dict[str, Any]]:
        config, groups = self.config, []
        learning = [(rest, config.rate)]
        if self.lite:
            learning = [([p for p in part.parameters() if p.requires_grad], rate)
                        for part, rate in lite.parts(self.network, config)]
        # Norms, biases and tables of positions are no products, and do not decay.
        decayed = {id(p) for name, p in self.network.named_parameters()
                   if name.endswith('.weight') and p.dim() > 1}
        if config.stage != 'open':
            for part, rate in learning:
                for decays in (True, False):
                    groups.append({
                        'params': [p for p in part if (id(p) in decayed) == decays],
                        'weight_decay': config.decay if decays else 0.0, 'peak': rate})
        if self.lite and config.stage == 'adaptive':
            groups += lite.policy_groups(self.network, config.policy_rate)
        elif config.stage != 'static':
            groups.append({'params': policy, 'weight_decay': 0.0, 'peak': config.policy_rate})
        return [group for group in groups if group['params']]

    def _resume(self) -> None:
        again = f'remove {self.state_path} to begin anew, or choose another out='
        try:
            state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise ValueError(f'{self.state_path} is damaged ({error}): {again}') from error
        if state.get('version') != STATE:
            raise ValueError(f'{self.state_path} was written by another version: {again}')
        mine = self._identity()
        for key, value in state['identity'].items():
            if mine[key] != value:
                raise ValueError(
                    f'{self.state_path} belongs to a run with {key}={value}, not {mine[key]}: '
                    f'{again}')
        self.network.load_state_dict(state['network'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.average, self.step, self.best = state['average'], state['step'], state['best']
        if self.sets is not None:
            self.sets.state, self.sets.begun = state['sets'], True
        threads = self._threads(state)
        if self.step >= self.config.steps:
            self._say(f'finished: {self.out} has its {self.step} steps; to go on give more of '
                      f'them, steps=N, or another out= to begin anew')
        else:
            self._say(f'resuming at step {self.step}{threads}')

    def _threads(self, state: Mapping[str, Any]) -> str:
        """
        Compute on as many threads as the run that is resumed; return what is to be said of it.

        Sums are split among threads: on another number of them they are rounded otherwise.
        """
        threads, now = state.get('threads', 0), torch.get_num_threads()
        if threads in (0, now) or self.device.type != 'cpu' or state['world'] != self.world:
            return ''
        if self.config.threads:
            return f' with threads={now}, not {threads}: results are rounded otherwise than before'
        torch.set_num_threads(threads)
        return f' with threads={threads}, as before, not {now}'

    def _identity(self) -> dict[str, str]:
        """Return what a resumed run must have in common with the one that it continues."""
        keys = ('data', 'per_clip', 'stage', 'objective', 'loss', 'batch', 'seed', 'ema', 'sizes',
                'frozen', 'pictures', 'pictured')
        return {
            **{key: str(getattr(self.config, key)) for key in keys},
            'network': self.network.config.to_json()}

    def _say(self, text: str) -> None:
        if self.rank == 0:
            self.console.print(text, markup=False, soft_wrap=True)

    def loss(self, frames: Mapping[str, Any], step: int) -> tuple[Tensor, dict[str, float], Any]:
        """Return the loss of a batch, the figures to report, and the policy's routing if any."""
        config, image = self.config, self._inputs(frames['image'])
        if config.stage == 'open':
            routing = self.network.forward_policy(
                image, torch.ones(len(image)), self.tasks, 0.0, measured=True)
            loss = open_loss(routing)
            return loss, {}, None
        taught = self._taught(image)
        if self.sets is not None:
            return (*self._under_sets(self.sets, image, frames, step, taught), None)
        if config.stage == 'static':
            outputs = self.network(image) if not self.lite else lite.forward(
                self.network, image, config, step / config.steps)[0]
            loss, report = self._task_loss(outputs, frames)
        elif config.objective == 'gain':
            return self._gain(image, frames, step, taught)
        else:
            tasks = self.tasks
            if step < config.alternate:
                tasks = (tasks[step // self.batches.per_epoch % len(tasks)],)
            routing = self.network.forward_policy(
                image, torch.full((len(image),), config.tokens_target), tasks, free=True)
            outputs = routing.outputs
            loss, report = self._task_loss(outputs, frames)
            efficiency = efficiency_loss(
                self.network, routing, config.blocks_target, config.tokens_target,
                config.weighted_tokens, config.efficiency)
            report |= {'efficiency': float(efficiency.detach()),
                       'spent': float(routing.spent.mean())}
            loss = loss + config.efficiency_weight * efficiency
        if taught is not None:
            distance = _distance(outputs, taught)
            report['distil'] = float(distance.detach())
            loss = loss + config.distill * distance
        return loss, report, None

    def _taught(self, image: Tensor) -> dict[str, Tensor] | None:
        """
        Return what the teacher says of a batch, None where there is none.

        With pictures, which come last, only of them, and of tasks that they have no labels for.
        """
        if self.teacher is None:
            return None
        tasks, count = self.tasks, len(image)
        if self.batches.pictures is not None:
            tasks = tuple(task for task in tasks if task not in LABELLED)
            count = len(range(self.batches.pictured)[self.batches.mine])
        with torch.no_grad():
            return dict(self.teacher(image[len(image) - count:], tasks))

    def _under_sets(
            self, sets: Sets, image: Tensor, frames: Mapping[str, Any], step: int,
            taught: Mapping[str, Tensor] | None) -> tuple[Tensor, dict[str, float]]:
        """Run the batch dense and each frame under a set of blocks; the policy learns of both."""
        config, done = self.config, step / self.config.steps
        rng = np.random.default_rng((config.seed, step, self.rank, 2))
        place = sets.place(rng)
        size = self.network.config.at(tuple(image.shape[2:])).sizes[place]
        small = resized(image, size)
        gates = sets.draw(small, done, rng, place)
        outputs = lite.forward(self.network, image, config, done, gates, size)
        (dense, report), (gated, _) = (self._task_loss(each, frames) for each in outputs)
        distance = distances(outputs[1], outputs[0]).mean()
        lesson = sets.lesson(small, gates, outputs, frames, self.class_weights, place)
        report |= {
            'dense': float(dense.detach()), 'gated': float(gated.detach()),
            'distil': float(distance.detach()), 'policy': float(lesson.detach())}
        if taught is not None:
            told = _distance(outputs[0], taught)
            report['told'] = float(told.detach())
            distance = distance + told
        return dense + gated + config.distill * distance + lesson, report

    def _inputs(self, pixels: Tensor) -> Tensor:
        return self.network.inputs(pixels) if self.lite else normalise(pixels)

    def _gain(
            self, image: Tensor, frames: Mapping[str, Any], step: int,
            taught: Mapping[str, Tensor] | None) -> tuple[Tensor, dict[str, float], Any]:
        """Run the batch dense and under budgets of its own; the gates' gains are measured."""
        rng = np.random.default_rng((self.config.seed, step, self.rank))
        low, high = self.config.budgets
        budgets = torch.from_numpy(rng.triangular(
            low, low + 0.37 * (high - low), high + 1e-9, len(image)).astype(np.float32))
        noise = torch.from_numpy(
            np.where(rng.random(len(image)) < EXPLORE, 10.0, 0.5).astype(np.float32))
        rng = np.random.default_rng((self.config.seed, step))
        tasks = self.tasks
        if len(tasks) > 1 and rng.random() < SUBSETS:
            count = int(rng.integers(1, len(tasks)))
            tasks = ordered(rng.choice(tasks, count, replace=False).tolist())
        dense = self.network(image)
        loss, report = self._task_loss(dense, frames)
        routing = self.network.forward_policy(image, budgets, tasks, noise, measured=True)
        gated, _ = self._task_loss(routing.outputs, frames)
        distance = distances(routing.outputs, dense if taught is None else taught).mean()
        report |= {
            'dense': float(loss.detach()), 'gated': float(gated.detach()),
            'distil': float(distance.detach()),
            'off_budget': float((routing.wish.detach() - budgets).abs().mean())}
        loss = loss + GATED_WEIGHT * gated + self.config.distill * distance
        return loss, report, (
            routing, self._block_gains(image, tasks, routing.gates), budgets, tasks)

    @torch.no_grad()
    def _block_gains(
            self, image: Tensor, tasks: Sequence[str], gates: Sequence[Tensor]) -> Tensor:
        """
        Return (B, blocks): how much nearer to the dense outputs each block brings those of gates.

        Each is closed if it is open, and opened if it is closed, and the network run again.
        """
        # Without the batch's own statistics, so that frames do not depend on one another.
        self.network.eval()
        dense = self.network(image, tasks)
        present = distances(self.network(image, tasks, gates), dense)
        gains = []
        for block, cells in enumerate(gates):
            opened = cells.any(1)
            other = list(gates)
            other[block] = (~opened).to(cells)[:, None].expand_as(cells)
            changed = distances(self.network(image, tasks, other), dense)
            gains.append(torch.where(opened, changed - present, present - changed))
        self.network.train()
        return torch.stack(gains, 1)

    def _task_loss(
            self, outputs: Mapping[str, Tensor], frames: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, float]]:
        return total_loss(
            outputs, frames, self.class_weights, self.config.loss,
            self.people if 'person' in frames else None)

    def advance(self, frames: Mapping[str, Any]) -> dict[str, float]:
        """
        Train one step on its batch; returns the batch's figures.

        TrainingError: the loss or its gradient is not finite; the network is left as it was.
        """
        config = self.config
        # What stays as it is keeps its running statistics too.
        if self.lite:
            lite.set_modes(self.network, config, self.step / config.steps)
        else:
            self.network.train(config.stage != 'open')
        factor = learning_rate(config, self.step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks):
            group['lr'] = factor * peak
        # Noise depends on process and step alone, so that a resumed run takes the same path.
        torch.manual_seed((config.seed * self.world + self.rank) * 1_000_003 + self.step)
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        self.optimizer.zero_grad(set_to_none=True)
        moved = self._move(frames)
        with self._autocast():
            loss, report, routed = self.loss(moved, self.step)
        loss.backward()
        if routed is not None:
            routing, gains, budgets, tasks = routed
            guide = gain_loss(self.network, routing, gains, budgets, tasks, config.prices)
            guide.backward()
            report['policy'] = float(guide.detach())
        report['loss'] = float(loss.detach())
        self._share_gradients(report)
        norms = [torch.nn.utils.clip_grad_norm_(part, config.clip) for part in self.clipped]
        if not math.isfinite(report['loss']) or not all(bool(n.isfinite()) for n in norms):
            with torch.no_grad():
                for buffer, value in zip(self.network.buffers(), buffers):
                    buffer.copy_(value)
            raise TrainingError(
                f'the loss is {report["loss"]} (gradient {max(map(float, norms))}) at step '
                f'{self.step}, frames {", ".join(frames["ids"])}. {self._kept()} Lower rate= (or '
                'look at these frames) and start again: it resumes there')
        self.optimizer.step()
        if self.sets is not None:
            self.sets.clamp()
        if self.average is not None:
            weight = 1 - min(config.ema, (1 + self.step) / (10 + self.step))
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, weight)
        self.step += 1
        return report

    def _move(self, frames: Mapping[str, Any]) -> dict[str, Any]:
        if 'frames' in frames:
            return changed(dict(frames), self.device)
        return {key: value.to(self.device, non_blocking=True) for key, value in frames.items()
                if key != 'ids'}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.bfloat16)

    def _share_gradients(self, report: dict[str, float]) -> None:
        """Average gradients, running statistics and figures over the processes."""
        if self.world == 1:
            return
        gradients = [p.grad for part in self.clipped for p in part if p.grad is not None]
        running = [b for n, b in self.network.named_buffers() if 'running_' in n]
        figures = torch.tensor(list(report.values()), device=self.device)
        tensors = [*gradients, *running, figures]
        flat = torch.cat([tensor.flatten() for tensor in tensors]) / self.world
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
            tensor.copy_(part.view_as(tensor))
        report.update(zip(report, figures.tolist()))

    def run(self) -> None:
        """
        Train to the last step, and write weights and state on the way.

        TrainingError: a loss that is not finite, or files that cannot be written.
        KeyboardInterrupt: Ctrl-C, once the step that it came in was done and saved; a second one
        does not wait for that.
        """
        config = self.config
        try_folder(self.out.parent)
        loader = iter(self.batches.loader(self.step, config.steps, config.workers))
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with self._interruptible(), self._events() as events, Progress(
                *columns, console=self.console,
                disable=self.rank > 0 or not self.console.is_terminal) as progress:
            task = progress.add_task(config.stage, total=config.steps, completed=self.step)
            mean: dict[str, float] = {}
            began, first = time.monotonic(), self.step
            waited = 0.0
            while self.step < config.steps:
                if self._stopped():
                    self.save()
                    self._say(f'stopped at step {self.step}: start again to go on')
                    raise KeyboardInterrupt
                asked = time.monotonic()
                frames = next(loader)
                waited += time.monotonic() - asked
                if 'error' in frames:
                    self.save()
                    raise TrainingError(f'{frames["error"]} (step {self.step}). {self._kept()}')
                report = self.advance(frames)
                mean = {k: 0.95 * mean.get(k, v) + 0.05 * v for k, v in report.items()} | {
                    k: v for k, v in mean.items() if k not in report}
                progress.update(task, completed=self.step)
                if self.step % LOG_EVERY == 0 or self.step == config.steps:
                    took = (time.monotonic() - began) / (self.step - first)
                    mean['data'] = waited / max(time.monotonic() - began, 1e-9)
                    self._log(mean, took, events)
                    began, first, waited = time.monotonic(), self.step, 0.0
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    self._validate(events)
                if self.step % config.save_every == 0 or self.step == config.steps:
                    self.save()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let Ctrl-C stop the run between two steps: within one, the weights are of neither."""
        def stop(*_: object) -> None:
            # torchrun sends each of its processes more than one.
            if self.stopping and self.world == 1:
                raise KeyboardInterrupt
            self.stopping = True

        before = signal.getsignal(signal.SIGINT)
        if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
            yield
            return
        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _stopped(self) -> bool:
        """Return whether any process was told to stop: all of them stop at the same step."""
        if self.world == 1:
            return self.stopping
        told = torch.tensor(float(self.stopping), device=self.device)
        distributed.all_reduce(told, distributed.ReduceOp.MAX)
        return bool(told)

    def _log(self, mean: Mapping[str, float], took: float, events: Any) -> None:
        left = round((self.config.steps - self.step) * took)
        figures = ' '.join(f'{k} {v:.3f}' for k, v in mean.items() if k != 'data')
        self._say(
            f'step {self.step}/{self.config.steps}, {self.config.batch / took:.1f} frames/s, '
            f'data {mean["data"]:.1%}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left: '
            + figures)
        if events is not None:
            for key, value in mean.items():
                events.add_scalar(f'train/{key}', value, self.step)
            events.add_scalar('train/rate', self.optimizer.param_groups[0]['lr'], self.step)

    @contextlib.contextmanager
    def _events(self) -> Iterator[Any]:
        if not self.config.log or self.rank:
            yield None
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "log=true needs TensorBoard: pip install 'adamtl_ros[train]'") from None
        with SummaryWriter(str(self.out.with_suffix('.log')), purge_step=self.step) as events:
            yield events

    def weights(self) -> Any:
        """Return the network whose weights are kept: averaged ones where `ema` is set."""
        if self.average is None:
            return self.network
        network = network_of(self.network.config).to(self.device)
        network.load_state_dict(self.average)
        return network

    @torch.no_grad()
    def _settled(self) -> Any:
        """Return those on the CPU, with the prices that the policy as it is has for budgets."""
        network: Any = network_of(self.network.config)
        network.load_state_dict(self.weights().state_dict())
        if self.sets is not None:
            worth.settle(network, worth.look(network, self.looked))
        return network

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """
        Return the mean losses on the validation frames: 'dense', and 'gated' where a policy runs.

        The policy runs without noise, under a budget of 0.5 or (objective efficiency) as it
        chooses by itself.
        """
        # Where prices change with the policy, they are settled on the CPU first.
        network = (self.weights() if self.sets is None else self._settled().to(self.device)).eval()
        sums: dict[str, float] = {}
        for batch in self.validation:
            frames = self._move(batch)
            image, count = self._inputs(frames['image']), len(batch['ids'])
            runs = {'dense': network(image)}
            if self.sets is not None:
                chooser = network.chooser(tuple(image.shape[2:]), self.tasks, {})
                price = chooser.price(VALIDATION_BUDGET, VALIDATION_BUDGET)
                start = chooser.begin(1.1, price, VALIDATION_BUDGET)
                small = resized(image, start.size)
                seen = features(network.look(small)).cpu().numpy()
                gates = torch.from_numpy(
                    worth.choose(network, seen, price, start.place)).to(image)
                runs['gated'] = lite.enlarged(
                    network.decode(network.taps(small, gates), self.tasks), start.size,
                    image.shape[2:], runs['dense'])
            elif self.config.stage != 'static':
                free = self.config.objective == 'efficiency'
                level = self.config.tokens_target if free else VALIDATION_BUDGET
                runs['gated'] = network.forward_policy(
                    image, torch.full((count,), level), self.tasks, 0.0, free).outputs
            for name, outputs in runs.items():
                sums[name] = sums.get(name, 0) + count * float(
                    self._task_loss(outputs, frames)[0])
        total = sum(len(batch['ids']) for batch in self.validation)
        return {name: value / total for name, value in sums.items()}

    def _validate(self, events: Any) -> None:
        """Validate on the first process, and keep the weights if they are the best so far."""
        if not self.validation or self.rank:
            return
        losses = self.validate()
        score = sum(losses.values()) / len(losses)
        better = score < self.best
        self._say(f'validation at step {self.step}: ' + ' '.join(
            f'{name} {value:.4f}' for name, value in losses.items())
            + (' (best so far)' if better else ''))
        if events is not None:
            for name, value in losses.items():
                events.add_scalar(f'val/{name}', value, self.step)
        if better:
            self.best = score
            self._write_weights(self.out.with_suffix('.best.safetensors'))

    def save(self) -> None:
        """Write the training state, then the weights, each in one move."""
        if self.rank:
            return
        with self._writing(self.state_path), whole(self.state_path, durable=True) as part:
            torch.save({
                'version': STATE, 'identity': self._identity(), 'step': self.step,
                'best': self.best, 'network': self.network.state_dict(), 'average': self.average,
                'sets': self.sets and self.sets.state,
                'optimizer': self.optimizer.state_dict(), 'world': self.world,
                'threads': torch.get_num_threads()}, part)
        self._write_weights(self.out)

    def _write_weights(self, path: Path) -> None:
        with self._writing(path):
            checkpoint.save(path, self._settled(), notes=notes(
                self.config, f'{self.config.stage} stage, step {self.step}'))

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            free = shutil.disk_usage(path.parent).free // 2 ** 20
            raise TrainingError(
                f'cannot write {path} at step {self.step} ({free} MB are free there): '
                f'{error.__cause__ or error}. {self._kept()} Make room and start again: it '
                'resumes there') from error

    def _kept(self) -> str:
        try:
            state = torch.load(self.state_path, map_location='cpu', weights_only=True)
        except Exception:
            return 'No state was saved yet.'
        return f'{self.state_path} keeps step {state["step"]}.'


def _distance(outputs: Mapping[str, Tensor], taught: Mapping[str, Tensor]) -> Tensor:
    """Return how far outputs are from a teacher's of the last frames, as a mean over all."""
    whole, count = (len(next(iter(each.values()))) for each in (outputs, taught))
    return distances(
        {task: outputs[task][whole - count:] for task in taught}, taught).sum() / whole


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the factor on the peak rates: linear warm-up, then half a cosine to last_rate."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    last = config.last_rate
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
