# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Run the AdaMTL reference on the numbers of recipe.py and store what it answers.

    python test/reference/make_reference.py ADAMTL_CLONE

needs a clone of github.com/scale-lab/AdaMTL (commit 5875898 was used) and ptflops.
"""

import itertools
import json
from pathlib import Path
import sys
import types
from unittest import mock

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), sys.argv[1]]

import recipe  # noqa: E402

# What the reference takes of timm, and the device of a tensor as a CPU has it.
layers = types.ModuleType('timm.models.layers')
layers.DropPath = torch.nn.Identity
layers.to_2tuple = lambda x: x if isinstance(x, tuple) else (x, x)
layers.trunc_normal_ = torch.nn.init.trunc_normal_
for name in ('timm', 'timm.models'):
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules['timm.models.layers'] = layers
torch.Tensor.get_device = lambda self: self.device
package = types.ModuleType('models')
package.__path__ = [str(Path(sys.argv[1]) / 'models')]
sys.modules['models'] = package

from models import controllers  # noqa: E402
from models.ada_swin_transformer import AdaSwinTransformer  # noqa: E402
from models.swin_mult import MultiTaskSwin  # noqa: E402
from models.swin_transformer import SwinTransformer  # noqa: E402

PASCAL = {'semseg': 21, 'human_parts': 7, 'sal': 1, 'normals': 3}
NYUD = {'semseg': 40, 'normals': 3, 'edge': 1, 'depth': 1}
TINY = {'img_size': 224, 'embed_dim': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24],
        'window_size': 7}
LITTLE = {'img_size': 128, 'embed_dim': 16, 'depths': [2, 1, 2, 2], 'num_heads': [1, 2, 2, 4],
          'window_size': 4}
MODELS = {
    # name: (encoder, decoder_dim, outputs, policy, ada_blocks, ada_tokens)
    'tiny_static': (TINY, 128, PASCAL, None, False, False),
    'tiny_task_aware': (TINY, 128, PASCAL, 'per_task', True, True),
    'tiny_task_agnostic': (TINY, 128, PASCAL, 'single', True, True),
    'little_static': (LITTLE, 48, NYUD, None, False, False),
    'little_task_aware': (LITTLE, 32, NYUD, 'per_task', True, True),
    'little_task_agnostic': (LITTLE, 32, PASCAL, 'single', True, True),
    'little_tokens_only': (LITTLE, 32, PASCAL, 'per_task', False, True),
    'little_blocks_only': (LITTLE, 32, PASCAL, 'single', True, False),
}
SHAPES = {
    'small_static': ({**TINY, 'depths': [2, 2, 18, 2]}, 256, NYUD, None, False, False),
    'base_task_agnostic_384': (
        {'img_size': 384, 'embed_dim': 128, 'depths': [2, 2, 18, 2],
         'num_heads': [4, 8, 16, 32], 'window_size': 12}, 256, PASCAL, 'single', True, True),
    'base_static_384': (
        {'img_size': 384, 'embed_dim': 128, 'depths': [2, 2, 18, 2],
         'num_heads': [4, 8, 16, 32], 'window_size': 12}, 128, PASCAL, None, False, False),
    'base_task_aware': (
        {'img_size': 224, 'embed_dim': 128, 'depths': [2, 2, 18, 2],
         'num_heads': [4, 8, 16, 32], 'window_size': 7}, 256, PASCAL, 'per_task', True, True),
}
SAMPLES = 200


def build(name, encoder, decoder_dim, outputs, policy, ada_blocks, ada_tokens):
    """Return the reference's network, with the weights of the recipe."""
    kwargs = dict(encoder, num_classes=0, drop_path_rate=0.0)
    if policy is None:
        backbone = SwinTransformer(**kwargs)
    else:
        backbone = AdaSwinTransformer(
            **kwargs, ada_blocks=ada_blocks, ada_tokens=ada_tokens, policy_mode=policy,
            tasks=list(outputs), block_ctrl_size=64, token_ctrl_size=64, adaptive=True)
    width = encoder['embed_dim']
    resolution = encoder['img_size'] // 32
    config = types.SimpleNamespace(TASKS=list(outputs), TASKS_CONFIG=types.SimpleNamespace(
        ALL_TASKS=types.SimpleNamespace(NUM_OUTPUT=outputs)))
    network = MultiTaskSwin(backbone, {
        'embed_dim': width, 'depths': encoder['depths'], 'decoder_dim': decoder_dim,
        'dims': [2 * width, 4 * width, 8 * width, 8 * width],
        'patch_res': [resolution, resolution, 2 * resolution, 4 * resolution]}, config)
    state = network.state_dict()
    network.load_state_dict({
        key: value if value.dtype == torch.int64 or 'attn_mask' in key
        else torch.from_numpy(recipe.weight(f'{name} {key}', tuple(value.shape)))
        for key, value in state.items()})
    return network.eval(), {key: list(value.shape) for key, value in state.items()}


def force(network, name, outputs, policy):
    """Make the controllers of the reference answer with the gates of the recipe."""
    backbone = network.backbone
    for stage, layer in enumerate(backbone.layers):
        tasks = list(outputs) if policy == 'per_task' else ['']
        masks = {
            task: [recipe.gates(name, stage, block, task, np.prod(layer.input_resolution), 0.4)
                   for block in range(len(layer.blocks))] for task in tasks}
        opened = [block for block in range(len(layer.blocks))
                  if any(masks[task][block].any() for task in tasks)]
        for task in tasks:
            tokens = layer.tokens_select[task] if task else layer.tokens_select
            blocks = backbone.layers_controllers[task] if task else backbone.layers_controllers
            block_mask = torch.tensor([[float(mask.any()) for mask in masks[task]]])
            # The reference asks each token controller once for every open block, in order.
            answers = itertools.cycle([
                torch.from_numpy(masks[task][block]).float()[None, :, None] for block in opened])
            blocks[stage].forward = lambda x, hard=True, mask=block_mask: mask.clone()
            tokens.forward = lambda x, hard=True, answers=answers: next(answers).clone()


def decoded(network, image):
    """Return the decoders' outputs before the last upsampling."""
    kept = {}
    hooks = [decoder.register_forward_hook(
        lambda _, __, out, task=task: kept.__setitem__(task, out[0].numpy().copy()))
        for task, decoder in network.decoders.items()]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return kept


def sampled(name, array):
    """Return some values of an array, drawn by the recipe, or all where there are few."""
    flat = array.reshape(-1)
    if len(flat) <= SAMPLES:
        return flat
    index = ((recipe.uniform(f'{name} samples', (SAMPLES,)) + 1) / 2 * len(flat)).astype(int)
    return flat[index]


def main():
    """Write reference.npz beside this file."""
    arrays, facts = {}, {}
    for name, parts in MODELS.items():
        encoder, _, outputs, policy = parts[:4]
        network, shapes = build(name, *parts)
        image = torch.from_numpy(recipe.image(encoder['img_size']))
        runs = {'dense': None}
        if policy:
            # Without Gumbel noise, which the reference draws at inference as well.
            quiet = mock.patch.object(
                controllers, 'gumbel_sigmoid',
                lambda logits, tau=1, hard=False: (logits.sigmoid() > 0.5).float())
            runs = {'own': quiet}
            if parts[4] and parts[5]:
                runs['forced'] = None
        entry = facts[name] = {'shapes': shapes, 'flops': {}, 'decoder_flops': {
            task: network.decoders[task].flops() for task in outputs}}
        for run, patch in runs.items():
            if run == 'forced':
                force(network, name, outputs, policy)
            with patch or mock.MagicMock(), torch.no_grad():
                for task, array in decoded(network, image).items():
                    assert np.isfinite(array).all() and array.std() > 1e-2, (name, run, task)
                    arrays[f'{name}/{run}/{task}'] = sampled(f'{name} {task}', array)
                    arrays[f'{name}/{run}/{task}/scale'] = np.abs(array).max()
                if policy:
                    _, _, tokens, per_task, _ = network(image, return_activation_stats=True)
                    arrays[f'{name}/{run}/gates'] = np.array([
                        float(mask.sum()) for stage in tokens for mask in stage], np.float32)
                    if policy == 'per_task' and run == 'own':
                        arrays[f'{name}/wishes'] = np.array([
                            np.mean([float(block[task].mean()) for stage in per_task
                                     for block in stage]) for task in outputs], np.float32)
                if not policy:
                    entry['flops'][run] = float(network.backbone.flops())
                elif parts[4] and parts[5]:
                    entry['flops'][run] = float(network.backbone.flops(image))
    for name, parts in SHAPES.items():
        facts[name] = {'shapes': build_shapes(name, parts)[1]}
    arrays['facts'] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez_compressed(FOLDER / 'reference.npz', **arrays)


def build_shapes(name, parts):
    """Return the shapes of a network of the reference, without filling it."""
    with mock.patch.object(recipe, 'weight', lambda key, shape: np.zeros(shape, np.float32)):
        return build(name, *parts)


if __name__ == '__main__':
    main()
