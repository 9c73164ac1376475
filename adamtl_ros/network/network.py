# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The assembled network: encoder, policy and decoders, dense, masked and gathered."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adamtl_ros.gating.tokens import Allowance
from adamtl_ros.gating.tokens import FrameGates
from adamtl_ros.gating.tokens import TokenGates
from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.cost import CostModel
from adamtl_ros.network.decoders import Decoder
from adamtl_ros.network.encoder import Block
from adamtl_ros.network.encoder import Encoder
from adamtl_ros.network.encoder import Stage
from adamtl_ros.network.normalise import normalise
from adamtl_ros.network.policy import Policy
from adamtl_ros.network.policy import StagePolicy
from adamtl_ros.network.trace import Gates
from adamtl_ros.network.trace import Trace
from adamtl_ros.tasks import DEPTH_RANGE

TEMPERATURE = 5.0
"""Of the Gumbel-sigmoid (AdaMTL uses the same)."""

@dataclass
class Routing:
    """
    What the policy did with a batch, for training.

    outputs: per task.  wish: cost (B,) of the policy's own choice (its positive logits, whatever
    the budget), with gradient.  spent: cost (B,) of the gates in force; both are shares of the
    dense cost.  blocks: per stage, logits (B, tasks, blocks).  tokens: per block, logits
    (B, tasks, H * W), both without noise.  opened: per stage, the blocks' gates (B, blocks).
    gates: per block, (B, H * W), the tokens' gates in force, 0 in a closed block.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    wish: Tensor = field(default_factory=Tensor)
    spent: Tensor = field(default_factory=Tensor)
    blocks: list[Tensor] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    opened: list[Tensor] = field(default_factory=list)
    gates: list[Tensor] = field(default_factory=list)


class AdaMTL(nn.Module):
    """
    One encoder, a decoder a task, and the policy that gates the encoder's blocks.

    Images are (B, 3, h, w), normalised, of the configured input size; outputs are a dict of
    (B, channels, H, W) per task at the decoders' resolution.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.cost = CostModel(config)
        self.encoder = Encoder(config)
        self.policy = Policy(config)
        self.decoders = nn.ModuleDict(
            {task: Decoder(config, config.outputs[task]) for task in config.tasks})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.token_gates = [TokenGates(block) for block in self.cost.blocks]

    def stages(self) -> Iterator[tuple[int, list[Block], StagePolicy]]:
        """Walk through the stages: number, blocks and policy of each."""
        policies = cast(Iterable[StagePolicy], self.policy.stages)
        for number, (stage, policy) in enumerate(zip(self.encoder.stages, policies)):
            yield number, cast(list[Block], list(cast(Stage, stage).blocks)), policy

    def blocks(self) -> list[Block]:
        """Return the encoder's blocks in the order in which they run."""
        return [block for _, blocks, _ in self.stages() for block in blocks]

    def task_indices(self, tasks: Sequence[str]) -> Tensor:
        """Return which of the policy's stacked controllers serve these tasks."""
        if self.config.policy == 'task_agnostic':
            return torch.zeros(1, dtype=torch.int64)
        return torch.tensor([self.config.tasks.index(task) for task in tasks])

    def decode(self, taps: Sequence[Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        """Run the decoders of the tasks on the tapped maps (B, H, W, C)."""
        maps = [tap.permute(0, 3, 1, 2) for tap in taps]
        return {task: self.decoders[task](maps) for task in tasks}

    def inputs(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (B, h, w, 3) RGB into what `forward` takes."""
        return normalise(pixels)

    def prepare(self) -> None:
        """Make a network that is not trained further as fast as torch runs it."""
        _fold(self.decoders)
        # torch's own annotations lack this argument.
        self.decoders.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def standard(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Return decoder outputs as `runtime.publish` reads them.

        They are that already but for converted weights, whose normals may lie in other axes than
        the optical frame's, and whose depth is metres, not their logarithm.
        """
        outputs = dict(outputs)
        if 'normals' in outputs and self.config.normals_axes != (1, 1, 1):
            value = outputs['normals']
            outputs['normals'] = value * value.new_tensor(self.config.normals_axes).view(3, 1, 1)
        if 'depth' in outputs and self.config.linear_depth:
            outputs['depth'] = outputs['depth'].clamp(min=DEPTH_RANGE[0]).log()
        return outputs

    def _downsample(self, stage: int, x: Tensor, taps: list[Tensor]) -> Tensor:
        downsample = cast(Stage, self.encoder.stages[stage]).downsample
        if downsample is not None:
            x = downsample(x)
        # The next stage's blocks change their input in place.
        taps.append(x.clone())
        return x

    def forward(
            self, image: Tensor, tasks: Sequence[str] | None = None,
            gates: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """
        Compute everything; `gates` choose what counts.  Returns `standard` outputs.

        gates: per block, (B, H * W) of 0 and 1, differentiable; None is the dense network.
        """
        x, index = self.encoder.stem(image), 0
        taps: list[Tensor] = []
        for number, blocks, _ in self.stages():
            for block in blocks:
                x = block(x, None if gates is None else gates[index].view(-1, *block.size))
                index += 1
            x = self._downsample(number, x, taps)
        return self.standard(self.decode(taps, tasks or self.config.tasks))

    def forward_policy(
            self, image: Tensor, budgets: Tensor, tasks: Sequence[str],
            noise: float | Tensor = 1.0, free: bool = False, measured: bool = False) -> Routing:
        """
        Run the masked network under its policy, for training.

        budgets: (B,).  noise: scale of the Gumbel noise on the logits, one for all or (B,).
        free: the gates open where a logit is positive, whatever that costs, instead of as the
        same budget allows at inference.
        measured: the gates are leaves of the graph, so that the gradient of a loss to them (what
        an open gate gains) can be read, and nothing reaches the policy through them; otherwise
        they pass their gradient straight through to a sigmoid of the logits.
        """
        self.config.check_policy()
        chosen = self.task_indices(tasks)
        enabled = tuple(tasks)
        allowances = [
            Allowance(self.cost, enabled, None if free else float(budget)) for budget in budgets]
        dense = self.cost.dense(enabled)
        routing = Routing()
        wish = torch.full(budgets.shape, float(self.cost.minimum(enabled)), device=image.device)
        x, index = self.encoder.stem(image), 0
        taps: list[Tensor] = []
        for number, blocks, policy in self.stages():
            logits = policy.blocks(x.detach() if measured else x, chosen).float()
            routing.blocks.append(logits)
            opened, wanted = self._union(logits, noise)
            ranked = np.stack([
                allowance.open_stage(number, row)
                for allowance, row in zip(allowances, opened.detach().cpu().tolist())])
            block_gates = _straight_through(opened, torch.from_numpy(ranked).to(opened))
            routing.opened.append(block_gates)
            controller = allowances[0].controllers * self.cost.token_controller[number]
            for position, block in enumerate(blocks):
                gates = self.token_gates[index]
                logits = policy.tokens(x.detach() if measured else x, chosen).float()
                routing.tokens.append(logits)
                scores, token_wish = self._union(logits, noise)
                keys = scores.detach().cpu().numpy()
                hard = np.zeros(keys.shape, dtype=np.float32)
                thresholds = np.zeros((len(keys), 1), dtype=np.float32)
                for row, allowance in enumerate(allowances):
                    if ranked[row, position]:
                        offered = allowance.offer(number)
                        choice = gates.choose(keys[row], offered)
                        allowance.spend(number, choice, offered)
                        hard[row] = choice.gate
                        # A block that runs whatever its logits are has no threshold.
                        thresholds[row] = max(choice.threshold, keys[row].min() - 1.0)
                if measured:
                    tokens = torch.from_numpy(hard).to(scores).requires_grad_()
                else:
                    tokens = block_gates[:, position, None] * _straight_through(
                        scores - torch.from_numpy(thresholds).to(scores),
                        torch.from_numpy(hard).to(scores))
                x = block(x, tokens.view(-1, *block.size))
                routing.gates.append(tokens)
                cost = token_wish.sum(1) * gates.cost.token + token_wish.amax(
                    1) * gates.cost.windows * gates.cost.window
                wish = wish + wanted[:, position] * (cost + controller)
                index += 1
            x = self._downsample(number, x, taps)
        routing.outputs = self.standard(self.decode(taps, tasks))
        routing.wish = wish / dense
        routing.spent = torch.tensor([allowance.spent / dense for allowance in allowances])
        return routing

    def _union(self, logits: Tensor, noise: float | Tensor) -> tuple[Tensor, Tensor]:
        """Join (B, tasks, n): the largest noisy logit, and its straight-through gate at 0."""
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        scale = torch.as_tensor(noise, dtype=logits.dtype, device=logits.device).view(-1, 1, 1)
        joined = (logits + scale * (uniform.log() - (-uniform).log1p())).amax(1)
        return joined, _straight_through(joined, (joined > 0).to(joined))

    @torch.no_grad()
    def run_dense(self, image: Tensor, tasks: Sequence[str]) -> tuple[dict[str, Tensor], Trace]:
        """Run one image without policy, every gate open."""
        gates = [np.ones(block.tokens, dtype=bool) for block in self.cost.blocks]
        outputs = self.run_gates(image, tasks, None)
        return outputs, Trace(gates, self.cost.dense(tasks), [1.0] * len(gates))

    @torch.no_grad()
    def run_gates(
            self, image: Tensor, tasks: Sequence[str], gates: Gates | None) -> dict[str, Tensor]:
        """Run one image gathered, under given gates; None is all open."""
        x, index = self.encoder.stem(image).contiguous(), 0
        taps: list[Tensor] = []
        for number, blocks, _ in self.stages():
            if gates is None:
                for block in blocks:
                    x = block(x)
            else:
                x = self._run(x, blocks, gates[index:index + len(blocks)])
                index += len(blocks)
            x = self._downsample(number, x, taps)
        return self.decode(taps, tasks)

    def _run(self, x: Tensor, blocks: Sequence[Block], gates: Gates) -> Tensor:
        """Run blocks of a stage on their active tokens; all indices go to the device at once."""
        parts = [
            np.flatnonzero(tokens) for tokens in gates if tokens.any() and not tokens.all()]
        sent: Iterator[Tensor] = iter(())
        if parts:
            joined = torch.from_numpy(np.concatenate(parts))
            if x.is_cuda:
                joined = joined.pin_memory()  # else the host waits for the device
            sent = iter(joined.to(x.device, non_blocking=True).split([len(p) for p in parts]))
        for block, tokens in zip(blocks, gates):
            if tokens.all():
                x = block(x)
            elif tokens.any():
                x = block.run(x, next(sent))
        return x

    @torch.no_grad()
    def run_policy(
            self, image: Tensor, tasks: Sequence[str], budget: float | None,
            weights: Mapping[str, float] | None = None) -> tuple[dict[str, Tensor], Trace]:
        """
        Run one image gathered, under the policy's choice for a budget in (0, 1].

        budget: None lets the policy choose by its own threshold: every positive logit opens.
        weights: how much each task's wish counts against the others' (1 unless given).
        ValueError: there is no policy.
        """
        enabled = tuple(tasks)
        frame = FrameGates(self.cost, self.token_gates, enabled, budget, weights)
        chosen = self.task_indices(enabled).to(image.device)
        x = self.encoder.stem(image).contiguous()
        taps: list[Tensor] = []
        for number, blocks, policy in self.stages():
            logits = policy.blocks(x, chosen)[0]
            for block, runs in zip(blocks, frame.open_stage(number, logits.cpu().numpy())):
                if not runs:
                    frame.close()
                    continue
                choice = frame.open_tokens(partial(_token_logits, policy, x, chosen))
                x = self._run(x, [block], [choice.gate])
            x = self._downsample(number, x, taps)
        return self.decode(taps, enabled), frame.trace()


def _token_logits(policy: StagePolicy, x: Tensor, tasks: Tensor) -> np.ndarray:
    """Return the logits (tasks, H * W) of the token controllers for one image."""
    return policy.tokens(x, tasks)[0].cpu().numpy()


def _straight_through(logits: Tensor, hard: Tensor) -> Tensor:
    """Return `hard` with the gradient of the sigmoid of logits at TEMPERATURE."""
    soft = torch.sigmoid(logits / TEMPERATURE)
    return hard + soft - soft.detach()


def _fold(module: nn.Module) -> None:
    """Put every BatchNorm that follows a convolution into that convolution's weights."""
    for child in module.modules():
        pairs = [('conv1', 'bn1'), ('conv2', 'bn2')]
        if isinstance(child, nn.Sequential):
            pairs = [(str(i), str(i + 1)) for i in range(len(child) - 1)]
        for first, second in pairs:
            conv, norm = getattr(child, first, None), getattr(child, second, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(child, first, fuse_conv_bn_eval(conv, norm))
                setattr(child, second, nn.Identity())
