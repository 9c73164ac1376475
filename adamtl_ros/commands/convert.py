# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints of the AdaMTL reference, and of classifiers, to this package's weights files.

Classifiers are Swin transformers and EfficientNets of the Lite kind (those without
squeeze-and-excitation); of them the encoder is taken, to start a training.

The shapes of the tensors tell the configuration.  Every tensor is used, or named as one that has
no place here; where a name or a shape does not fit, nothing is written.
"""

from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import math
from pathlib import Path
import pickle
import re
import sys
from typing import Any

from safetensors import safe_open
from safetensors import SafetensorError
import torch
from torch import Tensor

from adamtl_ros.arguments import Parser
from adamtl_ros.datasets.benchmarks import NORMALS_AXES
from adamtl_ros.datasets.benchmarks import NYU_CLASSES
from adamtl_ros.datasets.benchmarks import VOC_CLASSES
from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import NetworkConfig
from adamtl_ros.network.config import PRESETS
from adamtl_ros.network.kinds import Config
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite_network import LiteNetwork
from adamtl_ros.network.network import AdaMTL
from adamtl_ros.tasks import HUMAN_PARTS_CLASSES
from adamtl_ros.tasks import SEMSEG_CLASSES
from adamtl_ros.tasks import TASKS

State = dict[str, Tensor]

MAX_SIZE = 2048
"""Largest height and width of the input, in pixels."""

_NAMES = {
    'semseg': 'semseg', 'human_parts': 'human_parts', 'sal': 'saliency', 'normals': 'normals',
    'edge': 'edges', 'depth': 'depth'}
"""Tasks by their names in the reference."""

_CLASSES = {
    ('semseg', len(VOC_CLASSES)): VOC_CLASSES, ('semseg', len(NYU_CLASSES)): NYU_CLASSES,
    ('semseg', len(SEMSEG_CLASSES)): SEMSEG_CLASSES,
    ('human_parts', len(HUMAN_PARTS_CLASSES)): HUMAN_PARTS_CLASSES}

_COMPUTED = re.compile(r'.*\.(relative_position_index|attn_mask|num_batches_tracked)')
"""Buffers that follow from the configuration, or that only training reads."""

_UNUSED = re.compile(r'(backbone\.)?(norm|head|head\.fc)\.(weight|bias)')
"""The classifier, and the norm before it, which neither the reference's decoders nor ours see."""

_RENAMED = (
    (r'^backbone\.', ''), (r'^patch_embed\.', 'encoder.stem.'), (r'^layers\.', 'encoder.stages.'),
    (r'\.mlp\.fc1\.', '.mlp.0.'), (r'\.mlp\.fc2\.', '.mlp.2.'))


_STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the stages of an EfficientNet; no shape tells them."""

_LITE_UNITS = {
    '_expand_conv': 'expand.conv', '_bn0': 'expand.norm', '_depthwise_conv': 'depthwise.conv',
    '_bn1': 'depthwise.norm', '_project_conv': 'project.conv', '_bn2': 'project.norm'}
"""What a block of an EfficientNet has, by its names in the usual PyTorch port and here."""

_LITE_UNUSED = re.compile(r'(_conv_head|_bn1|_fc)\..+')
"""The classifier, and the layer before it."""


class CfgNode:
    """Stands in for yacs' class of this name, which the reference stores beside the weights."""

    def __new__(cls) -> OrderedDict:  # type: ignore[misc]
        """Return what torch's restricted unpickler can fill: settings, no code."""
        return OrderedDict()


# The name under which that unpickler finds it.
CfgNode.__module__ = 'yacs.config'


def read(path: str | Path) -> State:
    """
    Return the tensors of a file under the names of Swin's authors.

    Of a `.pth` file, those under `model` where there is such an entry; or of a `.safetensors` one.
    FileNotFoundError, or ValueError where it is damaged, holds code, or holds no tensors.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no checkpoint {path}')
    if Path(path).suffix == '.safetensors':
        return _authors(_read_safetensors(Path(path)))
    try:
        with torch.serialization.safe_globals([CfgNode]):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        held = f'it holds {found[1]}, which is code' if found else 'it is no plain checkpoint'
        raise ValueError(
            f'{path} is refused: {held}, not only numbers. Where you trust it, store its weights '
            "alone: torch.save({'model': torch.load(FILE, weights_only=False)['model']}, NEW)"
        ) from error
    except Exception as error:  # torch raises whatever the damaged place brings about
        raise ValueError(f'{path} is damaged or no checkpoint: {error}') from error
    state = content.get('model', content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(
            isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f'{path} holds no tensors under `model`: it is no such checkpoint')
    return _authors({name.removeprefix('module.'): value for name, value in state.items()})


def _read_safetensors(path: Path) -> State:
    try:
        with safe_open(str(path), 'pt') as file:
            kind = (file.metadata() or {}).get('format')
            if kind in (checkpoint.FORMAT, checkpoint.ENCODER_FORMAT):
                raise ValueError(
                    f'{path} is a weights file of this package already: use it as it is')
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path} is damaged or no checkpoint: {error}') from error


def _authors(state: State) -> State:
    """Return the tensors of timm's Swin, where a stage begins with its merging, by other names."""
    if any(name.startswith('layers.0.downsample.') for name in state):
        return state
    return {
        re.sub(r'^layers\.(\d+)\.downsample\.',
               lambda found: f'layers.{int(found[1]) - 1}.downsample.', name): value
        for name, value in state.items()}


def configuration(state: Mapping[str, Tensor], input_size: int = 0) -> NetworkConfig:
    """
    Return the configuration that the names and shapes of a checkpoint tell.

    input_size: height and width in pixels, for checkpoints whose shapes do not tell them; 0 none.
    ValueError: it is no checkpoint of a Swin transformer of the reference's kind.
    """
    prefix = 'backbone.' if any(name.startswith('backbone.') for name in state) else ''
    stem = state.get(f'{prefix}patch_embed.proj.weight')
    if stem is None or stem.shape[1:] != (3, 4, 4):
        raise ValueError(
            f'no tensor {prefix}patch_embed.proj.weight of shape (C, 3, 4, 4): it is no Swin '
            'transformer with patches of 4 pixels')
    depths: list[int] = []
    for name in state:
        found = re.match(rf'{re.escape(prefix)}layers\.(\d+)\.blocks\.(\d+)\.', name)
        if found:
            stage, block = int(found[1]), int(found[2])
            if stage > 9 or block > 99:
                raise ValueError(f'{name}: no Swin transformer has so many stages or blocks')
            depths += [0] * (stage + 1 - len(depths))
            depths[stage] = max(depths[stage], block + 1)
    first = [f'{prefix}layers.{stage}.blocks.0.' for stage in range(len(depths))]
    tables = [state.get(f'{name}attn.relative_position_bias_table') for name in first]
    hidden = state.get(f'{prefix}layers.0.blocks.0.mlp.fc1.weight')
    if not depths or hidden is None or any(table is None for table in tables):
        raise ValueError(
            f'no tensors {prefix}layers.*.blocks.0.attn.relative_position_bias_table and '
            f'{prefix}layers.0.blocks.0.mlp.fc1.weight: it is no Swin transformer')
    window = max((math.isqrt(len(table)) + 1) // 2 for table in tables if table is not None)
    policy, policy_hidden = _policy(state)
    outputs, dims = _decoders(state)
    size = _input_size(state, prefix, window, policy_hidden)
    if size and input_size and size != input_size:
        raise ValueError(f'input_size {input_size}: the shapes say {size}')
    size = size or input_size
    if not size:
        if outputs:
            raise ValueError(
                'no shape tells the size of the input (there are neither controllers nor '
                'attn_mask): give it, --input-size 224 or the like')
        size = window * (4 << len(depths) - 1)
    if not 0 < size <= MAX_SIZE:
        raise ValueError(f'the input has {size} pixels: 1 to {MAX_SIZE} are expected')
    width = len(stem)
    # An encoder alone is trained with this package's conventions, to begin with for all tasks.
    reference: dict[str, Any] = {
        'outputs': {name: task.channels for name, task in TASKS.items()}}
    if outputs:
        reference = {
            'outputs': outputs, 'decoder_dim': dims, 'policy': policy,
            'normals_axes': NORMALS_AXES, 'linear_depth': True,
            'classes': {
                task: _CLASSES.get((task, count), tuple(f'class_{n}' for n in range(count)))
                for task, count in outputs.items() if TASKS[task].kind == 'classes'}}
    config = NetworkConfig(
        name=_name(width, tuple(depths)), input_size=(size, size), embed_dim=width,
        depths=tuple(depths), heads=tuple(table.shape[1] for table in tables if table is not None),
        window=(window, window), mlp_ratio=len(hidden) // width,
        policy_hidden=policy_hidden or 64, **reference)
    config.check()
    return config


def _name(width: int, depths: tuple[int, ...]) -> str:
    for name, preset in PRESETS.items():
        if isinstance(preset, NetworkConfig) and (
                preset.embed_dim, preset.depths) == (width, depths):
            return name
    return f'swin_{width}_{"_".join(map(str, depths))}'


def _policy(state: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return the kind of policy and its hidden width; ValueError where controllers differ."""
    names = [name for name in state if 'tokens_select.' in name or 'layers_controllers.' in name]
    if not names:
        return 'none', 0
    widths = {len(state[name]) for name in names if name.endswith('.mlp.bias')}
    if len(widths) != 1:
        raise ValueError(
            f'the controllers have hidden layers of {sorted(widths)} units: one width is expected')
    aware = any(re.search(r'(tokens_select|layers_controllers)\.[a-z]+\w*\.(\d+\.)?(mlp|fc)\.', n)
                for n in names)
    return 'task_aware' if aware else 'task_agnostic', widths.pop()


def _decoders(state: Mapping[str, Tensor]) -> tuple[dict[str, int], int]:
    """Return the outputs per task, and the width of the decoders; 0 where there are none."""
    outputs, widths = {}, set()
    for name, value in state.items():
        found = re.fullmatch(r'decoders\.(\w+)\.segment\.3\.weight', name)
        if found:
            if found[1] not in _NAMES:
                raise ValueError(
                    f'{name}: {found[1]!r} is no task of the reference: those are '
                    f'{", ".join(_NAMES)}')
            outputs[_NAMES[found[1]]] = len(value)
            widths.add(value.shape[1])
    if len(widths) > 1:
        raise ValueError(f'the decoders have widths {sorted(widths)}: one width is expected')
    return outputs, widths.pop() if widths else 0


def _input_size(state: Mapping[str, Tensor], prefix: str, window: int, hidden: int) -> int:
    """Return the height of the input in pixels; 0 where no shape tells."""
    for name, value in state.items():
        found = re.search(r'layers_controllers\.(?:[a-z]\w*\.)?(\d+)\.fc\.weight$', name)
        if found and hidden:
            return math.isqrt(value.shape[1] // hidden) * (4 << int(found[1]))
        found = re.match(rf'{re.escape(prefix)}layers\.(\d+)\.blocks\.\d+\.attn_mask$', name)
        if found:
            return math.isqrt(len(value)) * window * (4 << int(found[1]))
    return 0


def convert(state: Mapping[str, Tensor], config: NetworkConfig) -> tuple[State, list[str]]:
    """
    Return the tensors under our names, and the names of those that have no place here.

    ValueError: a tensor is missing, of another shape, or of no known name; all are named.
    """
    ours: State = {}
    origin: dict[str, str] = {}
    unused = []
    controllers: dict[tuple[str, int], dict[str, dict[str, Tensor]]] = {}
    strange = []
    known = {_reference_name(task): task for task in config.outputs}
    for name, value in state.items():
        found = re.fullmatch(
            r'backbone\.(?:layers\.(\d+)\.tokens_select\.(?:([a-z]\w*)\.)?|'
            r'layers_controllers\.(?:([a-z]\w*)\.)?(\d+)\.)((?:mlp|fc)\.(?:weight|bias))', name)
        if found:
            stage = int(found[1] if found[1] is not None else found[4])
            kind = 'tokens' if found[1] is not None else 'blocks'
            task = found[2] or found[3] or ''
            if task and task not in known:
                strange.append(name)
            controllers.setdefault((kind, stage), {}).setdefault(task, {})[found[5]] = value
        elif _UNUSED.fullmatch(name):
            unused.append(name)
        elif not _COMPUTED.fullmatch(name):
            target = _renamed(name, known)
            ours[target], origin[target] = value.float(), name
    stages = range(len(config.depths))
    order = [''] if config.policy == 'task_agnostic' else [
        _reference_name(task) for task in config.tasks]
    for kind in ('tokens', 'blocks') if controllers else ():
        found_any = any(key[0] == kind for key in controllers)
        for stage in stages:
            parts = controllers.get((kind, stage), {})
            if not found_any:
                parts = {task: _always_open(config, kind, stage) for task in order}
            target = f'policy.stages.{stage}.{kind}'
            for source, name, turned in (
                    ('mlp.weight', 'weight1', True), ('mlp.bias', 'bias1', False),
                    ('fc.weight', 'weight2', True), ('fc.bias', 'bias2', False)):
                values = [parts.get(task, {}).get(source) for task in order]
                present = [value for value in values if value is not None]
                if len(present) == len(order) and len({v.shape for v in present}) == 1:
                    stacked = torch.stack(present).float()
                    ours[f'{target}.{name}'] = stacked.transpose(1, 2) if turned else stacked
    _compare(ours, origin, config, strange)
    return ours, unused


def _reference_name(task: str) -> str:
    return next(name for name, mine in _NAMES.items() if mine == task)


def _renamed(name: str, known: Mapping[str, str]) -> str:
    """Return our name of a tensor of the encoder or of a decoder."""
    found = re.fullmatch(r'decoders\.(\w+)\.(fuse\.\d+|segment)\.(\d+)\.(.+)', name)
    if found and found[1] in known:
        # Two modules that only reshape come before the residual blocks of the reference.
        number = int(found[3]) - (2 if found[2].startswith('fuse') else 0)
        return f'decoders.{known[found[1]]}.{found[2]}.{number}.{found[4]}'
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    return name


def _always_open(config: NetworkConfig, kind: str, stage: int) -> State:
    """Return a controller with logits of 1, for a policy that decides on the other kind alone."""
    height, width = config.resolution(stage)
    hidden = config.policy_hidden
    outputs, inputs = (config.depths[stage], height * width * hidden) if kind == 'blocks' else (
        1, hidden)
    return {
        'mlp.weight': torch.zeros(hidden, config.width(stage)), 'mlp.bias': torch.zeros(hidden),
        'fc.weight': torch.zeros(outputs, inputs), 'fc.bias': torch.ones(outputs)}


def _compare(
        ours: Mapping[str, Tensor], origin: Mapping[str, str], config: NetworkConfig,
        strange: list[str]) -> None:
    """Raise ValueError that names every tensor that does not fit the configuration."""
    encoder_only = not any(name.startswith('decoders.') for name in ours)
    with torch.device('meta'):
        skeleton = {
            name: value for name, value in AdaMTL(config).state_dict().items()
            if value.is_floating_point() and (not encoder_only or name.startswith('encoder.'))}
    faults = [f'{name} is of no known kind' for name in strange]
    faults += [f'{origin.get(name, name)} is of no known kind' for name in ours
               if name not in skeleton]
    faults += [f'{name} is missing' for name in skeleton if name not in ours]
    faults += [
        f'{origin.get(name, name)} is {tuple(value.shape)}, not {tuple(skeleton[name].shape)}'
        for name, value in ours.items()
        if name in skeleton and value.shape != skeleton[name].shape]
    if faults:
        raise ValueError(
            f'{len(faults)} tensors do not fit {config.name} ({config.input_size[0]} pixels, '
            f'window {config.window[0]}): ' + '; '.join(faults))


def lite_configuration(state: Mapping[str, Tensor], input_size: int = 0) -> LiteConfig:
    """Return the configuration that an EfficientNet's shapes tell; ValueError if they do not."""
    stages: list[list[int]] = []
    inputs = len(state['_conv_stem.weight'])
    stem, number = inputs, 0
    while f'_blocks.{number}._project_conv.weight' in state:
        name = f'_blocks.{number}.'
        if f'{name}_depthwise_conv.weight' not in state:
            raise ValueError(f'{name}_depthwise_conv.weight is missing')
        outputs, hidden = state[f'{name}_project_conv.weight'].shape[:2]
        if outputs != inputs:
            kernel = state[f'{name}_depthwise_conv.weight'].shape[-1]
            stages.append([0, kernel, 1, hidden // inputs, outputs])
        if not stages:
            raise ValueError(f'{name} does not change the width of the stem, {inputs}')
        stages[-1][0] += 1
        inputs, number = outputs, number + 1
    if len(stages) != len(_STRIDES):
        raise ValueError(
            f'its blocks have {len(stages)} different widths in a row: an EfficientNet has '
            f'{len(_STRIDES)} stages')
    for stage, stride in zip(stages, _STRIDES):
        stage[2] = stride
    config = LiteConfig('glasses', stem=stem, stages=tuple(
        (a, b, c, d, e) for a, b, c, d, e in stages))
    preset = PRESETS['glasses']
    if isinstance(preset, LiteConfig) and replace(config, reduced=preset.reduced) == preset:
        config = preset
    else:
        config = replace(config, name=f'efficientnet_lite_{inputs}_{number}')
    if input_size:
        config = config.at((input_size, input_size))
    config.check()
    return config


def convert_lite(state: Mapping[str, Tensor], config: LiteConfig) -> tuple[State, list[str]]:
    """Return the encoder's tensors under our names, and the names that have no place here."""
    ours, unused, faults = {}, [], []
    names = {'_conv_stem': 'encoder.stem.conv', '_bn0': 'encoder.stem.norm'}
    for number, block in enumerate(config.blocks):
        names |= {f'_blocks.{number}.{theirs}': f'{block.name}.{mine}'
                  for theirs, mine in _LITE_UNITS.items()}
    with torch.device('meta'):
        shapes = {name: value.shape for name, value in LiteNetwork(config).state_dict().items()
                  if value.is_floating_point() and name.startswith('encoder.')}
    for name, value in state.items():
        part, _, kind = name.rpartition('.')
        target = f'{names.get(part)}.{kind}'
        if target in shapes:
            ours[target] = value.float()
            if value.shape != shapes[target]:
                faults.append(f'{name} is {tuple(value.shape)}, not {tuple(shapes[target])}')
        elif _LITE_UNUSED.fullmatch(name):
            unused.append(name)
        elif not _COMPUTED.fullmatch(name):
            faults.append(f'{name} is of no known kind')
    faults += [f'{name} is missing' for name in shapes if name not in ours]
    if faults:
        raise ValueError(f'{len(faults)} tensors do not fit {config.name}: ' + '; '.join(faults))
    return ours, unused


def run(source: str | Path, target: str | Path, input_size: int = 0) -> tuple[
        Config, list[str], bool]:
    """
    Convert a file; returns its configuration, what has no place, whether it is an encoder alone.

    FileNotFoundError, ValueError or OSError name what is wrong; `target` is then as it was.
    """
    source, target = Path(source), Path(target)
    if target.is_dir():
        raise ValueError(f'{target} is a folder: give the file to write')
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f'{target} is the checkpoint itself: give another file to write')
    state = read(source)
    config: Config
    try:
        if '_conv_stem.weight' in state:
            config = lite_configuration(state, input_size)
            tensors, unused = convert_lite(state, config)
        else:
            config = configuration(state, input_size)
            tensors, unused = convert(state, config)
    except ValueError as error:
        raise ValueError(f'{source} cannot be converted: {error}') from error
    except (ArithmeticError, LookupError, RuntimeError, TypeError) as error:
        raise ValueError(
            f'{source} cannot be converted: its tensors have shapes that fit no Swin transformer '
            f'and no EfficientNet-Lite ({error})') from error
    encoder_only = not any(name.startswith('decoders.') for name in tensors)
    checkpoint.write(target, tensors, config, encoder_only, {'converted': source.name})
    return config, unused, encoder_only


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl convert CHECKPOINT OUT`; 2 on a checkpoint that cannot be converted."""
    parser = Parser(
        prog='adamtl convert',
        description='Convert a checkpoint of the AdaMTL reference (static or adaptive), or of a '
                    'Swin or EfficientNet-Lite classifier, whose encoder then starts a training.')
    parser.add_argument(
        'checkpoint', help='.pth file, its tensors under `model` or not, or .safetensors file')
    parser.add_argument('out', help='.safetensors file to write')
    parser.add_argument(
        '--input-size', type=int, default=0, metavar='PIXELS',
        help='height and width of the input, where no shape in the checkpoint tells them')
    options = parser.parse_args(argv)
    try:
        config, unused, encoder_only = run(options.checkpoint, options.out, options.input_size)
    except (ValueError, OSError) as error:
        print(f'adamtl convert: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    what = 'encoder alone, to start a training'
    if isinstance(config, NetworkConfig):
        policy = {'none': 'no policy'}.get(config.policy, f'{config.policy} policy')
        if not encoder_only:
            what = f'{policy}, decoders of width {config.decoder_dim}: ' + ', '.join(
                f'{task} {count}' for task, count in config.outputs.items())
        what = f'window {config.window[0]}, {what}'
    height, width = config.input_size
    print(f'{options.out}: {config.name}, {width}x{height} pixels, {what}')
    if unused:
        print(f'has no place in the network: {", ".join(unused)}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
