# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The convolutional network of `lite`, in torch."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn
from torch import Tensor
import torch.nn.functional as functional

from adamtl_ros.gating.subsets import BlockPolicy
from adamtl_ros.gating.subsets import BUDGETS
from adamtl_ros.gating.subsets import Start
from adamtl_ros.network.lite import BlockSpec
from adamtl_ros.network.lite import Conv
from adamtl_ros.network.lite import EPSILON
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite import LiteCost
from adamtl_ros.network.lite import MEAN
from adamtl_ros.network.lite import STD
from adamtl_ros.network.lite import SUBPIXELS
from adamtl_ros.network.lite import trace_of
from adamtl_ros.network.trace import Gates
from adamtl_ros.network.trace import Trace


class Unit(nn.Module):
    """
    A convolution with TensorFlow's "same" padding, a norm or a bias, and an activation.

    While its norm is in evaluation mode the norm is part of the convolution's weights, in
    training too: that saves two passes over the map and leaves the gradients what they are.
    """

    def __init__(self, spec: Conv) -> None:
        super().__init__()
        self.spec = spec
        self.conv = nn.Conv2d(
            spec.inputs, spec.outputs, spec.kernel, spec.stride, bias=not spec.norm,
            groups=spec.inputs if spec.depthwise else 1)
        self.norm = nn.BatchNorm2d(spec.outputs, eps=EPSILON) if spec.norm else None
        around = spec.kernel - spec.stride
        # Of an even size, with stride 2, what is padded lies after it.
        self.padding = (around // 2, around - around // 2) * 2 if spec.stride > 1 else None
        self.pad = 0 if self.padding else spec.kernel // 2

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias with the norm in them, if it is in evaluation mode."""
        conv, norm = self.conv, self.norm
        if norm is None or norm.training:
            return conv.weight, conv.bias
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return conv.weight * scale.view(-1, 1, 1, 1), norm.bias - mean * scale

    @torch.no_grad()
    def fold(self) -> None:
        """Put the norm into the convolution for good."""
        weight, bias = self.folded()
        self.conv.weight, self.norm = nn.Parameter(weight), None
        self.conv.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, H, W)."""
        conv, norm = self.conv, self.norm
        weight, bias = self.folded()
        if self.padding:
            x = functional.pad(x, self.padding)
        if self.spec.depthwise and self.spec.kernel > 3 and torch.is_autocast_enabled('cpu'):
            # In bfloat16 the gradient of such a layer has no fast kernel.
            with torch.autocast('cpu', enabled=False):
                x = functional.conv2d(
                    x.float(), weight, bias, conv.stride, self.pad, 1, conv.groups).bfloat16()
        else:
            x = functional.conv2d(x, weight, bias, conv.stride, self.pad, 1, conv.groups)
        if norm is not None and norm.training:
            x = norm(x)
        if self.spec.act == 'relu6':
            return functional.relu6(x, inplace=True)
        return functional.relu(x, inplace=True) if self.spec.act == 'relu' else x


class Bottleneck(nn.Module):
    """An inverted bottleneck; (B, channels, h, w) to the same at its own width and stride."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.gated = spec.gated
        for conv in spec.convs:
            self.add_module(conv.name.rsplit('.', 1)[1], Unit(conv))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Run on all frames; `gate` (B), 0 or 1, chooses in which of them it counts."""
        y = x
        for unit in self.children():
            y = unit(y)
        if not self.gated:
            return y
        return x + y if gate is None else x + y * gate.view(-1, 1, 1, 1).to(y.dtype)


class Encoder(nn.Module):
    """The stem and the stages of blocks."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self.stem = Unit(config.first)
        self.stages = nn.ModuleList(nn.ModuleList() for _ in config.stages)
        for block in config.blocks:
            self.stages[block.stage].append(Bottleneck(block))  # type: ignore[operator]


def _units(convs: Mapping[str, tuple[Conv, int]]) -> nn.ModuleDict:
    tree = nn.ModuleDict()
    for name, (conv, _) in convs.items():
        branch, *leaf = name.split('.')
        if leaf:
            if branch not in tree:
                tree[branch] = nn.ModuleDict()
            cast(nn.ModuleDict, tree[branch])[leaf[0]] = Unit(conv)
        else:
            tree[branch] = Unit(conv)
    return tree


def _mix(units: nn.ModuleDict, x: Tensor) -> Tensor:
    return units['point'](units['depthwise'](x))


def upsample(x: Tensor, factor: int = 2) -> Tensor:
    """Enlarge (B, C, h, w) bilinearly."""
    return functional.interpolate(
        x, scale_factor=factor, mode='bilinear', align_corners=False)


class Pyramid(nn.Module):
    """Joins the taps, coarse to fine, for all decoders."""

    last: Unit
    context: Unit
    sixteenth: Unit
    eighth: Unit
    fine: Unit
    down: Unit
    mix_sixteenth: nn.ModuleDict
    mix_eighth: nn.ModuleDict
    mix_fine: nn.ModuleDict

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        for name, part in _units(config.pyramid_convs()).items():
            self.add_module(name, part)

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Taps at strides 4, 8, 16, 32, finest first, to maps at strides 8 and 4."""
        fine, eighth, sixteenth, last = taps
        context = self.context(last.mean((2, 3), keepdim=True))
        x = functional.relu(self.last(last) + context)
        x = _mix(self.mix_sixteenth, functional.relu(self.sixteenth(sixteenth) + upsample(x)))
        x = _mix(self.mix_eighth, functional.relu(self.eighth(eighth) + upsample(x)))
        y = _mix(self.mix_fine, functional.relu(self.fine(fine) + upsample(self.down(x))))
        return x, y


class Decoder(nn.Module):
    """From the pyramid to the channels of one task."""

    coarse: nn.ModuleDict
    down: Unit
    mix: nn.ModuleDict
    out: Unit

    def __init__(self, config: LiteConfig, task: str) -> None:
        super().__init__()
        for name, part in _units(config.decoder_convs(task)).items():
            self.add_module(name, part)
        self.subpixels = SUBPIXELS.get(task, 1)
        nn.init.normal_(self.out.conv.weight, std=0.01)
        if self.out.conv.bias is not None:
            nn.init.zeros_(self.out.conv.bias)

    def forward(self, eighth: Tensor, fine: Tensor) -> Tensor:
        """Turn maps at strides 8 and 4 into (B, channels, H, W) at stride 4, or finer."""
        x = functional.relu(fine + upsample(self.down(_mix(self.coarse, eighth))))
        x = self.out(_mix(self.mix, x))
        return functional.pixel_shuffle(x, self.subpixels) if self.subpixels > 1 else x


class Policy(nn.Module):
    """
    What `gating.subsets` computes with; in torch for training alone.

    mean, scale (features): bring what the network sees of a frame to mean 0, deviation 1.
    first, second: two layers to the rise by task and late gate; bias (tasks, gates): added to it.
    typical (tasks, gates): the mean rise.  pairs (tasks, gates, gates): what two closed gates add.
    smaller (tasks, reduced sizes): how much more the error is at those.  prices: for each of
    BUDGETS, at each of the sizes.
    """

    mean: Tensor
    scale: Tensor
    typical: Tensor
    pairs: Tensor
    prices: Tensor
    smaller: Tensor

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        tasks, gates, features = len(config.tasks), len(config.gated), config.features()
        self.first = nn.Linear(features, config.policy_hidden)
        self.second = nn.Linear(
            config.policy_hidden, tasks * (gates - config.early), bias=False)
        nn.init.zeros_(self.second.weight)
        self.bias = nn.Parameter(torch.full((tasks, gates), -4.0))
        for name, shape in (('mean', (features,)), ('scale', (features,)),
                            ('typical', (tasks, gates)), ('pairs', (tasks, gates, gates)),
                            ('prices', (1 + len(config.reduced), len(BUDGETS)))):
            self.register_buffer(name, torch.full(shape, float(name == 'scale')))
        if config.reduced:
            self.register_buffer('smaller', torch.zeros(tasks, len(config.reduced)))


class Presence(nn.Linear):
    """Whether frames have anything for a rare task: maps at strides 16 and 32 to (B), above 0."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__(config.looks(), 1)
        # Until it has learned what such frames look like, all have something.
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.bias)
        # It learns in training.presence alone.
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """Look at the maps (B, C, h, w)."""
        return functional.linear(extremes(maps), self.weight.float(), self.bias.float())[:, 0]


class LiteNetwork(nn.Module):
    """
    Encoder, pyramid, a decoder a task, and the policy.

    Images are what `inputs` gives, sides in multiples of 32; outputs are a dict of
    (B, channels, H, W) per task, as `runtime.publish` reads them, for the canonical camera.
    """

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.cost = LiteCost(config)
        self.encoder = Encoder(config)
        self.pyramid = Pyramid(config)
        self.decoders = nn.ModuleDict({task: Decoder(config, task) for task in config.tasks})
        if config.policy != 'none':
            self.policy = Policy(config)
        if config.rare:
            self.presence = Presence(config)
        self._choosers: dict[object, BlockPolicy] = {}

    def inputs(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (B, h, w, 3) into (B, 3, h, w), channels last, about -1 to 1."""
        return ((pixels.float() - MEAN) / STD).permute(0, 3, 1, 2)

    def forward(
            self, image: Tensor, tasks: Sequence[str] | None = None,
            gates: Sequence[Tensor] | None = None) -> dict[str, Tensor]:
        """
        Compute everything; `gates` choose what counts.

        gates: per gated block, (B, 1) of 0 and 1; None is the dense network.
        """
        taps = self.taps(image, None if gates is None else torch.cat(list(gates), 1))
        return self.decode(taps, tasks or self.config.tasks)

    def taps(
            self, x: Tensor, gates: Tensor | None = None, look: list[Tensor] | None = None,
            after: Callable[[int, Tensor], Tensor] | None = None) -> list[Tensor]:
        """
        Return the encoder's maps at strides 4, 8, 16 and 32.

        gates: (B, gates), 0 or 1.  look: gets the map that the policy looks at.  after: gets the
        number and the map of each stage, and returns what takes its place.
        """
        x, taps, number = self.encoder.stem(x), [], 0
        for index, stage in enumerate(self.encoder.stages):
            if look is not None and index == self.config.decision:
                look.append(x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, None if gates is None or not block.gated else gates[:, number])
                number += block.gated
            x = x if after is None else after(index, x)
            taps += [x] * (index in self.config.taps)
        if gates is not None:
            taps[-1] = taps[-1] * gates[:, -1].view(-1, 1, 1, 1).to(x.dtype)
        return taps

    def look(self, x: Tensor) -> Tensor:
        """Return the map of (B, 3, h, w) that the policy looks at, every block before it open."""
        x = self.encoder.stem(x)
        for stage in self.encoder.stages[:self.config.decision]:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
        return x

    def decode(self, taps: Sequence[Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
        """Run pyramid and decoders."""
        if not tasks:
            return {}
        eighth, fine = self.pyramid(taps)
        return {task: self.decoders[task](eighth, fine) for task in tasks}

    def empty(self, taps: Sequence[Tensor], tasks: Sequence[str]) -> tuple[str, ...] | None:
        """Return the tasks that one frame has nothing for, None where none of them can be told."""
        rare = tuple(task for task in self.config.rare if task in tasks)
        if not rare:
            return None
        return () if float(self.presence(taps[2:])) > 0 else rare

    def prepare(self) -> None:
        """Make a network that is not trained further as fast as torch runs it."""
        for module in self.modules():
            if isinstance(module, Unit):
                module.fold()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def standard(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs as `runtime.publish` reads them: these are."""
        return dict(outputs)

    @torch.no_grad()
    def run_dense(self, image: Tensor, tasks: Sequence[str]) -> tuple[dict[str, Tensor], Trace]:
        """Run one frame, every gate open."""
        outputs = self.decode(self.taps(image), tasks)
        cost = LiteCost(self.config.at((image.shape[2], image.shape[3])))
        return outputs, trace_of(cost, tasks, np.ones(len(cost.blocks), dtype=bool), None)

    @torch.no_grad()
    def run_gates(
            self, image: Tensor, tasks: Sequence[str], gates: Gates) -> dict[str, Tensor]:
        """Run one image under given gates, bool (1) each; what is closed is not computed."""
        opened = np.concatenate(gates)
        x = self.encoder.stem(image)
        taps: list[Tensor] = []
        x = self._stages(x, range(self.config.coarse), opened, taps)
        self._finish(x, opened, taps)
        return self.decode(taps, tasks)

    @torch.no_grad()
    def run_policy(
            self, image: Tensor, tasks: Sequence[str], budget: float,
            weights: Mapping[str, float] | None = None, price: float = 0.0,
            skip_empty: bool = False) -> tuple[dict[str, Tensor], Trace]:
        """
        Run one image under the policy's choice for a budget in (0, 1], which it does not exceed.

        weights: how much each task counts against the others (1 unless given).  price: what a
        gate must be worth, see gating.subsets; 0 opens what the budget pays for.  skip_empty:
        leave out tasks that the image has nothing for; the trace names them.
        Outputs are for the size of the input that was chosen, the trace's.
        """
        chooser = self.chooser((image.shape[2], image.shape[3]), tasks, weights or {})
        start = chooser.begin(budget, price)
        return self.run_chosen(
            resized(image, start.size), tasks, chooser, start, budget, price, skip_empty)

    @torch.no_grad()
    def run_chosen(
            self, image: Tensor, tasks: Sequence[str], chooser: BlockPolicy, start: Start,
            budget: float, price: float = 0.0, skip_empty: bool = False
    ) -> tuple[dict[str, Tensor], Trace]:
        """Run one image that has the size of its start; see run_policy."""
        config = self.config.at(start.size)
        gates = np.concatenate((
            chooser.early(start), np.zeros(len(config.gated) - config.early, dtype=bool)))
        taps: list[Tensor] = []
        x = self._stages(self.encoder.stem(image), range(config.decision), gates, taps)
        choice = chooser.finish(start, features(x)[0].cpu().numpy(), budget, price)
        x = self._stages(x, range(config.decision, config.coarse), choice.gates, taps)
        self._finish(x, choice.gates, taps)
        empty = self.empty(taps, tasks) if skip_empty else None
        return self.decode(taps, [task for task in tasks if task not in (empty or ())]), trace_of(
            LiteCost(config), tasks, choice.gates, choice.wishes, empty)

    def chooser(
            self, size: tuple[int, int], tasks: Sequence[str], weights: Mapping[str, float]
    ) -> BlockPolicy:
        """Return what chooses the gates of frames of (height, width) for tasks of weights."""
        self.config.check_policy()
        key = size, tuple(tasks), tuple(sorted(weights.items()))
        if key not in self._choosers:
            config = self.config.at(size)
            self._choosers[key] = BlockPolicy(
                config, LiteCost(config), self.policy_arrays(), tasks, weights)
        return self._choosers[key]

    def policy_arrays(self) -> dict[str, np.ndarray]:
        """Return the policy's arrays, as `gating.subsets` reads them."""
        return {f'policy.{name}': value.detach().cpu().numpy()
                for name, value in self.policy.state_dict().items()}

    def _stages(
            self, x: Tensor, stages: range, gates: np.ndarray, taps: list[Tensor]) -> Tensor:
        runs = {block.name: bool(gate) for block, gate in zip(self.config.gated, gates)}
        for index in stages:
            blocks = cast(nn.ModuleList, self.encoder.stages[index])
            for number, block in enumerate(blocks):
                if runs.get(f'encoder.stages.{index}.{number}', True):
                    x = block(x)
            taps += [x] * (index in self.config.taps)
        return x

    def _finish(self, x: Tensor, gates: np.ndarray, taps: list[Tensor]) -> None:
        if gates[-1]:
            self._stages(x, range(self.config.coarse, len(self.config.stages)), gates, taps)
        else:
            size = [side // 2 for side in x.shape[2:]]
            taps.append(x.new_zeros(
                (len(x), self.config.stages[self.config.taps[-1]][-1], *size)))


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Bring inputs (B, 3, h, w) to (height, width), averaging where that is smaller."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    return functional.interpolate(image, list(size), mode='bilinear', antialias=True)


def features(x: Tensor) -> Tensor:
    """Return (B, 2 C), what the policy sees of (B, C, h, w): mean and deviation by channel."""
    x = x.float()
    mean = x.mean((2, 3))
    spread = (x - mean[:, :, None, None]).square().mean((2, 3)).sqrt()
    return torch.cat((mean, spread), 1)


def extremes(maps: Sequence[Tensor]) -> Tensor:
    """Return (B, 2 C), what the head of presence sees of maps: of each, means, then maxima."""
    return torch.cat([
        part for x in maps for part in (x.float().mean((2, 3)), x.float().amax((2, 3)))], 1)
