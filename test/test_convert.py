# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the reference: the same outputs, the same MACs, and what is refused."""

from dataclasses import replace
from functools import cache
import json
from pathlib import Path
import pickle
import re
import resource
import sys
import types

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file
import torch

from adamtl_ros import cli
from adamtl_ros.commands import convert
from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import PRESETS
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.tasks import TASKS as ALL
from corpus import write_corpus
import recipe

with np.load(Path(__file__).parent / 'reference' / 'reference.npz') as stored:
    REFERENCE = dict(stored)
FACTS = json.loads(REFERENCE.pop('facts').tobytes())
SAMPLES = 200
TASKS = {'sal': 'saliency', 'edge': 'edges'}


def state_of(name):
    """Return the checkpoint that the reference was run with."""
    return {
        key: torch.from_numpy(recipe.weight(f'{name} {key}', tuple(shape)))
        for key, shape in FACTS[name]['shapes'].items()}


def shapes_of(name):
    """Return a checkpoint's tensors without their values."""
    return {key: torch.empty(shape, device='meta')
            for key, shape in FACTS[name]['shapes'].items()}


def write(path, name):
    torch.save({'model': state_of(name), 'epoch': 3, 'max_accuracy': 0.5}, path)
    return path


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    """Return a function that converts a checkpoint once, over the command line."""
    folder = tmp_path_factory.mktemp('converted')

    def get(name):
        path = folder / f'{name}.safetensors'
        if not path.exists():
            source = write(folder / 'checkpoint.pth', name)
            assert cli.main(['convert', str(source), str(path)]) == 0
            source.unlink()
        return path
    return get


def assert_same(name, run, outputs):
    """Compare with what the reference gave: 1e-4 of the largest value of a task."""
    stored_tasks = {key.split('/')[2] for key in REFERENCE
                    if key.startswith(f'{name}/{run}/') and not key.endswith('gates')}
    assert {TASKS.get(task, task) for task in stored_tasks} == set(outputs)
    for task in stored_tasks:
        array = np.asarray(outputs[TASKS.get(task, task)]).reshape(-1)
        if len(array) > SAMPLES:
            place = (recipe.uniform(f'{name} {task} samples', (SAMPLES,)) + 1) / 2
            array = array[(place * len(array)).astype(int)]
        wanted, scale = (REFERENCE[f'{name}/{run}/{task}{end}'] for end in ('', '/scale'))
        assert np.abs(array - wanted).max() <= 1e-4 * scale, task


def reference_encoder_macs(cost, opened, tokens, controllers):
    """
    Return what the reference's flops() counts in the encoder, from our cost model.

    It adds a multiplication a channel for every norm (and for one before a classifier that it
    does not have), and leaves out the block controllers.
    """
    config = cost.config
    size = [height * width for height, width in map(config.resolution, range(len(config.depths)))]
    macs = cost.stem + sum(cost.merges) + size[0] * config.embed_dim
    macs += sum(size[s] * config.width(s) for s in range(len(size) - 1))
    macs += config.width(len(size) - 1) * size[0] // 2 ** len(size)
    for block, is_open, active in zip(cost.blocks, opened, tokens):
        if active:
            macs += block.gated(active)
            macs += 2 * size[block.stage] * config.width(block.stage)
        macs += is_open * controllers * cost.token_controller[block.stage]
    return macs


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tiny_static', 'little_static'])
def test_static_is_the_reference(converted, name):
    network = checkpoint.load(str(converted(name)))
    image = torch.from_numpy(recipe.image(network.config.input_size[0]))
    outputs, _ = network.run_dense(image, network.config.tasks)
    assert_same(name, 'dense', {task: value[0].numpy() for task, value in outputs.items()})
    tokens = [block.tokens for block in network.cost.blocks]
    assert FACTS[name]['flops']['dense'] == reference_encoder_macs(
        network.cost, [True] * len(tokens), tokens, 0)
    for task, macs in FACTS[name]['decoder_flops'].items():
        # ptflops, which the reference asks, adds norms, activations and biases.
        assert 1 <= macs / network.cost.decoders[TASKS.get(task, task)] < 1.04


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    'tiny_task_aware', 'tiny_task_agnostic', 'little_task_aware', 'little_task_agnostic'])
def test_same_gates_same_outputs(converted, name):
    """Gates drawn at random; a task-aware policy joins those of its tasks."""
    network = checkpoint.load(str(converted(name)))
    aware = network.config.policy == 'task_aware'
    assert aware == ('aware' in name)
    names = {mine: theirs for theirs, mine in TASKS.items()}
    tasks = [names.get(task, task) for task in network.config.tasks] if aware else ['']
    gates = []
    for stage, depth in enumerate(network.config.depths):
        height, width = network.config.resolution(stage)
        gates += [
            np.any([recipe.gates(name, stage, block, task, height * width, 0.4)
                    for task in tasks], 0) for block in range(depth)]
    assert len({float(gate.mean()) for gate in gates}) > 2
    np.testing.assert_array_equal(
        [gate.sum() for gate in gates], REFERENCE[f'{name}/forced/gates'])
    image = torch.from_numpy(recipe.image(network.config.input_size[0]))
    outputs = network.run_gates(image, network.config.tasks, gates)
    assert_same(name, 'forced', {task: value[0].numpy() for task, value in outputs.items()})
    active = [int(gate.sum()) for gate in gates]
    assert FACTS[name]['flops']['forced'] == reference_encoder_macs(
        network.cost, [count > 0 for count in active], active, len(tasks))


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    'tiny_task_aware', 'tiny_task_agnostic', 'little_task_aware', 'little_task_agnostic',
    'little_tokens_only', 'little_blocks_only'])
def test_own_policy_is_the_reference_without_noise(converted, name):
    """Without a budget the policy decides by its own threshold, block for block."""
    network = checkpoint.load(str(converted(name)))
    tasks = network.config.tasks
    image = torch.from_numpy(recipe.image(network.config.input_size[0]))
    outputs, trace = network.run_policy(image, tasks, None)
    np.testing.assert_array_equal(
        [gate.sum() for gate in trace.gates], REFERENCE[f'{name}/own/gates'])
    assert_same(name, 'own', {task: value[0].numpy() for task, value in outputs.items()})
    if network.config.policy == 'task_aware':
        # Which task asked for what: the union alone would not tell them apart.
        theirs = [TASKS.get(key.split('.')[1], key.split('.')[1])
                  for key in FACTS[name]['shapes'] if key.endswith('segment.3.bias')]
        wishes = dict(zip(tasks, trace.task_fraction))
        np.testing.assert_allclose(
            [wishes[task] for task in theirs], REFERENCE[f'{name}/wishes'], atol=1e-6)
    if 'own' in FACTS[name]['flops']:
        controllers = network.cost.controllers(tasks)
        extra = sum(network.cost.stage_controller) * controllers
        extra += sum(network.cost.decoders.values())
        active = [int(gate.sum()) for gate in trace.gates]
        counted = network.cost.stem + sum(network.cost.merges) + extra
        norms = reference_encoder_macs(network.cost, [False] * len(active), [0] * len(active), 0)
        assert trace.macs >= counted
        assert FACTS[name]['flops']['own'] - (trace.macs - extra) == pytest.approx(
            norms - network.cost.stem - sum(network.cost.merges) + sum(
                2 * block.tokens * network.config.width(block.stage)
                for block, count in zip(network.cost.blocks, active) if count), abs=1)


@pytest.mark.parametrize('name, preset, size, window, policy, width, tasks', [
    ('tiny_static', 'swin_tiny', 224, 7, 'none', 64, 4),
    ('small_static', 'swin_small', 224, 7, 'none', 128, 4),
    ('base_static_384', 'swin_base', 384, 12, 'none', 64, 4),
    ('base_task_agnostic_384', 'swin_base', 384, 12, 'task_agnostic', 128, 4),
    ('base_task_aware', 'swin_base', 224, 7, 'task_aware', 128, 4),
    ('little_tokens_only', 'swin_16_2_1_2_2', 128, 4, 'task_aware', 16, 4)])
def test_shapes_tell_the_configuration(name, preset, size, window, policy, width, tasks):
    config = convert.configuration(shapes_of(name))
    assert (config.name, config.input_size, config.window) == (preset, (size,) * 2, (window,) * 2)
    assert (config.policy, config.decoder_dim, len(config.tasks)) == (policy, width, tasks)
    if preset in PRESETS:
        wanted = PRESETS[preset]
        assert (config.embed_dim, config.depths, config.heads, config.mlp_ratio) == (
            wanted.embed_dim, wanted.depths, wanted.heads, wanted.mlp_ratio)
    assert {task: len(names) for task, names in config.classes.items()} == {
        task: count for task, count in config.outputs.items() if task in ('semseg', 'human_parts')}
    assert config.outputs['semseg'] in (21, 40)
    assert config.classes['semseg'][-1] in ('tvmonitor', 'otherprop')
    tensors, unused = convert.convert(shapes_of(name), config)
    assert tensors and not unused


def test_infer_runs_a_converted_checkpoint(converted, tmp_path, capsys):
    """A picture of the input's size goes in as it is; raw is what the decoders give."""
    model = converted('little_task_agnostic')
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'p.png'), picture)
    assert cli.main([
        'infer', str(tmp_path / 'p.png'), '--model', str(model), '--raw', '--out',
        str(tmp_path / 'o')]) == 0
    gating = json.loads((tmp_path / 'o' / 'p.json').read_text())
    assert gating['mode'] == 'adaptive' and gating['budget_requested'] is None
    network = checkpoint.load(str(model))
    mean, std = (torch.tensor(v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    rgb = torch.from_numpy(picture[..., ::-1].copy()).float() / 255
    image = ((rgb - mean) / std).permute(2, 0, 1)[None]
    outputs, trace = network.run_policy(image, network.config.tasks, None)
    assert gating['budget_achieved'] == pytest.approx(
        trace.macs / network.cost.dense(network.config.tasks))
    with np.load(tmp_path / 'o' / 'p.npz') as raw:
        assert raw['semseg'].shape == (21, 16, 16)
        for task, value in outputs.items():
            np.testing.assert_allclose(
                raw[task], value[0].numpy(), atol=1e-4 * float(value.abs().max()))


def test_other_conventions_become_ours(converted):
    """Normals turn into the optical frame, and depth, which is metres there, is published so."""
    engine = Engine(str(converted('little_static')))
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    result = engine.infer(picture, Settings(tasks=engine.tasks, raw=True))
    size = (128, 128)
    raw = {task: cv2.resize(value.transpose(1, 2, 0), size)
           for task, value in result.raw.items()}
    np.testing.assert_allclose(
        result.outputs['depth'], np.clip(raw['depth'], 0.05, 50), rtol=1e-4)
    assert result.outputs['depth'].max() > 0.1
    signs = result.outputs['normals'] / (raw['normals'] * (1, 1, -1))
    assert (np.sign(signs).min(-1) == np.sign(signs).max(-1)).all()
    network = checkpoint.load(str(converted('little_static')))
    dense = network(torch.zeros(1, 3, 128, 128), ('depth',))['depth']
    raw_depth, _ = network.run_dense(torch.zeros(1, 3, 128, 128), ('depth',))
    np.testing.assert_allclose(
        dense.detach().exp(), raw_depth['depth'].clamp(min=0.05), rtol=1e-4)


def test_a_static_checkpoint_runs_in_mode_static_only(converted, tmp_path, capsys):
    model = str(converted('little_static'))
    engine = Engine(model)
    assert engine.modes == ('static',) and engine.min_budget(engine.tasks) == 1.0
    picture = np.zeros((128, 128, 3), np.uint8)
    for mode in ('shadow', 'adaptive'):
        with pytest.raises(ValueError, match=f'mode .{mode}.: the model .* has no policy'):
            engine.infer(picture, Settings(mode=mode, tasks=engine.tasks))
    cv2.imwrite(str(tmp_path / 'p.png'), picture)
    arguments = [
        'infer', str(tmp_path / 'p.png'), '--model', model, '--out', str(tmp_path / 'o')]
    assert cli.main([*arguments, '--mode', 'adaptive']) == 2
    assert 'has no policy; choose mode static' in capsys.readouterr().err
    assert cli.main(arguments) == 0
    assert json.loads((tmp_path / 'o' / 'p.json').read_text())['mode'] == 'static'
    with pytest.raises(ValueError, match='has no policy'):
        checkpoint.load(model).forward_policy(
            torch.zeros(1, 3, 128, 128), torch.ones(1), engine.tasks)


def test_a_policy_that_was_trained_with_budgets_needs_one():
    engine = Engine('glasses')
    settings = Settings(mode='adaptive', budget=None, tasks=engine.tasks)
    with pytest.raises(ValueError, match='was trained with budgets'):
        engine.infer(np.zeros((192, 256, 3), np.uint8), settings)
    assert engine.infer(
        np.zeros((192, 256, 3), np.uint8), replace(settings, mode='static')).outputs


def swin_classifier():
    """Return a Swin classifier's state, from the encoder of a checkpoint of the reference."""
    state = {key.removeprefix('backbone.'): value
             for key, value in state_of('little_static').items() if key.startswith('backbone.')}
    width = len(state['layers.3.blocks.0.norm1.weight'])
    return state | {
        'norm.weight': torch.ones(width), 'norm.bias': torch.zeros(width),
        'head.weight': torch.zeros(1000, width), 'head.bias': torch.zeros(1000)}


@pytest.mark.slow
def test_a_classifier_starts_a_training(tmp_path, capsys):
    source, out = tmp_path / 'swin.pth', tmp_path / 'swin.safetensors'
    torch.save({'model': swin_classifier()}, source)
    assert cli.main(['convert', str(source), str(out)]) == 0
    written = capsys.readouterr().out
    assert 'encoder alone' in written
    assert 'no place in the network: norm.weight, norm.bias, head.weight, head.bias' in written
    with pytest.raises(ValueError, match='encoder alone.*adamtl train CONFIG start='):
        Engine(str(out))
    network = checkpoint.load(str(out), to_train=True)
    assert network.config.tasks == tuple(ALL) and network.config.policy == 'task_aware'
    assert (network.config.depths, network.config.input_size) == ((2, 1, 2, 2), (128, 128))
    train_one_step(tmp_path, out)
    trained = checkpoint.load(str(tmp_path / 'trained.safetensors'))
    name = 'stages.2.blocks.1.mlp.0.weight'
    before = network.encoder.state_dict()[name]
    assert torch.allclose(trained.encoder.state_dict()[name], before, atol=1e-2)
    assert Engine(str(tmp_path / 'trained.safetensors')).tasks == tuple(ALL)


def as_timm(state):
    """Return a classifier's tensors as timm names them since its release 0.9."""
    names = {}
    for name in state:
        found = re.fullmatch(r'layers\.(\d+)\.downsample\.(.+)', name)
        merging = found and f'layers.{int(found[1]) + 1}.downsample.{found[2]}'
        names[name] = merging or re.sub(r'^head\.', 'head.fc.', name)
    return {new: state[old] for old, new in names.items()
            if not re.search('attn_mask|relative_position_index', old)}


def test_classifiers_of_timm_and_in_safetensors_are_the_same(tmp_path, capsys):
    authors, timm = swin_classifier(), as_timm(swin_classifier())
    assert 'layers.3.downsample.norm.weight' in timm and 'layers.0.downsample.norm.weight' in (
        authors)
    size = ['--input-size', '128']
    written = {}
    for name, state in (('authors', authors), ('timm', timm)):
        torch.save(state, tmp_path / f'{name}.pth')
        save_file({key: value.contiguous() for key, value in state.items()},
                  tmp_path / f'{name}.safetensors', {'format': 'pt'})
        for suffix in ('pth', 'safetensors'):
            out = tmp_path / 'out.safetensors'
            assert cli.main([
                'convert', str(tmp_path / f'{name}.{suffix}'), str(out), *size]) == 0
            head = 'head.fc.weight' if name == 'timm' else 'head.weight'
            assert head in capsys.readouterr().out
            written[name, suffix] = checkpoint.read(str(out), to_train=True)
    config, arrays, encoder_only = written['authors', 'pth']
    assert encoder_only
    for other in written.values():
        assert other[0] == config and other[1].keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, other[1][name])
    # A tensor too few is missed by its name in the file.
    del timm['layers.2.downsample.norm.bias']
    save_file(timm, tmp_path / 'less.safetensors')
    assert cli.main([
        'convert', str(tmp_path / 'less.safetensors'), str(tmp_path / 'x'), *size]) == 2
    assert 'encoder.stages.1.downsample.norm.bias is missing' in capsys.readouterr().err


def test_safetensors_that_cannot_be_converted_say_so(converted, tmp_path, capsys):
    done = converted('little_static')
    damaged = tmp_path / 'damaged.safetensors'
    damaged.write_bytes(done.read_bytes()[:1000])
    for source, words in ((done, 'is a weights file of this package already'),
                          (damaged, 'is damaged or no checkpoint')):
        assert cli.main(['convert', str(source), str(tmp_path / 'out.safetensors')]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count('\n') == 1
    assert not (tmp_path / 'out.safetensors').exists()


def train_one_step(folder, start):
    config = folder / 'train.yaml'
    data = write_corpus(folder / 'corpus', 2)
    config.write_text(
        f'data: {data}\nout: {folder}/trained.safetensors\nstart: {start}\nstage: static\n'
        'steps: 1\nbatch: 2\nwarmup: 1\nworkers: 0\n')
    assert cli.main(['train', str(config)]) == 0


def test_a_converted_network_is_trained_on(converted, tmp_path):
    """With its own decoders and conventions; a policy may be added."""
    start = converted('little_static')
    network = checkpoint.load(str(start))
    config = tmp_path / 'train.yaml'
    data = write_corpus(tmp_path / 'corpus', 2)
    config.write_text(
        f'data: {data}\nout: {tmp_path}/trained.safetensors\nstart: {start}\nsteps: 1\n'
        'batch: 2\nwarmup: 1\nworkers: 0\nstage: adaptive\nnetwork: {policy: task_aware}\n'
        'tasks: [normals, depth]\n')
    assert cli.main(['train', str(config)]) == 0
    trained = checkpoint.load(str(tmp_path / 'trained.safetensors'))
    assert trained.config.linear_depth and trained.config.policy == 'task_aware'
    assert trained.config.normals_axes == (1, 1, -1)
    name = 'depth.segment.0.weight'
    assert torch.allclose(
        trained.decoders.state_dict()[name], network.decoders.state_dict()[name], atol=1e-2)
    weight = recipe.weight('little_static backbone.layers.2.blocks.1.mlp.fc1.weight', (256, 64))
    assert torch.equal(
        network.encoder.stages[2].blocks[1].mlp[0].weight, torch.from_numpy(weight))


def refused(capsys, tmp_path, content):
    """Convert what must be refused; return the one line about it."""
    source, out = tmp_path / 'c.pth', tmp_path / 'out' / 'c.safetensors'
    if content is not None:
        torch.save(content, source)
    assert cli.main(['convert', str(source), str(out)]) == 2
    assert not out.exists()
    written = capsys.readouterr().err
    assert written.count('\n') == 1 and 'Traceback' not in written
    return written


@pytest.mark.slow
def test_what_does_not_fit_is_listed_by_name(tmp_path, capsys):
    state = state_of('little_task_aware')
    strange = {**state, 'backbone.absolute_pos_embed': torch.zeros(1, 4, 4),
               'decoders.semseg.extra.weight': torch.zeros(3)}
    written = refused(capsys, tmp_path, {'model': strange})
    assert 'backbone.absolute_pos_embed is of no known kind' in written
    assert 'decoders.semseg.extra.weight is of no known kind' in written
    gone = dict(state)
    for name in ('backbone.layers.1.blocks.0.attn.qkv.bias', 'decoders.edge.segment.1.bias',
                 'backbone.layers.2.tokens_select.depth.fc.weight'):
        del gone[name]
    written = refused(capsys, tmp_path, {'model': gone})
    for name in ('encoder.stages.1.blocks.0.attn.qkv.bias', 'decoders.edges.segment.1.bias',
                 'policy.stages.2.tokens.weight2'):
        assert f'{name} is missing' in written
    name = 'backbone.layers.0.downsample.reduction.weight'
    written = refused(capsys, tmp_path, {'model': {**state, name: torch.zeros(3, 3)}})
    assert f'{name} is (3, 3), not (32, 64)' in written
    other = {key.replace('decoders.depth.', 'decoders.flow.'): value
             for key, value in state.items()}
    assert "'flow' is no task of the reference" in refused(capsys, tmp_path, {'model': other})
    sizeless = {key: value for key, value in state_of('little_static').items()
                if not key.endswith('attn_mask')}
    assert '--input-size' in refused(capsys, tmp_path, {'model': sizeless})
    out = tmp_path / 'sized.safetensors'
    assert cli.main([
        'convert', str(tmp_path / 'c.pth'), str(out), '--input-size', '128']) == 0
    assert checkpoint.load(str(out)).config.input_size == (128, 128)


@pytest.mark.slow
def test_odd_shapes_are_refused(tmp_path, monkeypatch, capsys):
    """Whatever the shape of one tensor, it is refused in a line, or of no consequence."""
    state = state_of('little_task_agnostic')
    maskless = {name: value for name, value in shapes_of('little_task_agnostic').items()
                if not name.endswith('attn_mask')}
    assert convert.configuration(maskless).input_size == (128, 128)
    out = str(tmp_path / 'o.safetensors')
    (tmp_path / 'c.pth').touch()
    monkeypatch.setattr(checkpoint, 'write', lambda *_: None)
    # Of the same configuration its shapes are the same.
    monkeypatch.setattr(convert, 'AdaMTL', cache(convert.AdaMTL))
    for name in list(state)[::23]:
        for shape in ((), (0,), (4, 0), (2, 2, 2, 2)):
            odd = {**state, name: torch.zeros(shape)}
            monkeypatch.setattr(convert, 'read', lambda _, odd=odd: odd)
            code = cli.main(['convert', str(tmp_path / 'c.pth'), out])
            written = capsys.readouterr().err
            if not name.endswith(('relative_position_index', 'num_batches_tracked', 'attn_mask')):
                assert code == 2 and 'cannot be converted' in written, (name, shape)
                assert written.count('\n') == 1
    for name, shape in (
            ('backbone.layers.99999999.blocks.0.norm1.weight', (16,)),
            ('backbone.layers.0.blocks.99999999.norm1.weight', (16,)),
            ('backbone.layers_controllers.0.fc.weight', (2, 64 * 10 ** 12))):
        with pytest.raises(ValueError, match='so many stages|pixels: 1 to 2048'):
            convert.configuration(
                {**maskless, name: torch.empty(shape, device='meta')})


def test_bad_files_are_refused(tmp_path, capsys):
    assert 'no checkpoint' in refused(capsys, tmp_path, None)
    for content, words in (
            ([1, 2], 'holds no tensors'), ({'model': {'a': 1}}, 'holds no tensors'),
            ({'model': {'a': torch.zeros(2)}}, 'no Swin transformer'),
            ({'state_dict': {}}, 'holds no tensors')):
        assert words in refused(capsys, tmp_path, content)
    whole = write(tmp_path / 'c.pth', 'little_static').read_bytes()
    for damaged in (whole[:len(whole) // 2], whole[:100], b'', b'not a checkpoint'):
        (tmp_path / 'c.pth').write_bytes(damaged)
        written = refused(capsys, tmp_path, None)
        assert 'c.pth is' in written and ('damaged' in written or 'refused' in written)


class Evil:
    """Runs something when it is unpickled carelessly."""

    def __reduce__(self):
        return print, ('CODE HAS RUN',)


def test_pickled_code_does_not_run(tmp_path, capsys):
    written = refused(capsys, tmp_path, {'model': state_of('little_static'), 'config': Evil()})
    assert 'which is code' in written and 'print' in written
    assert 'CODE HAS RUN' not in capsys.readouterr().out
    (tmp_path / 'c.pth').write_bytes(pickle.dumps({'model': Evil()}))
    assert 'CODE HAS RUN' not in refused(capsys, tmp_path, None)


def test_the_settings_beside_the_weights_are_no_code(tmp_path, monkeypatch):
    """The reference stores its yacs configuration in every checkpoint of a training."""
    module = types.ModuleType('yacs.config')
    exec('class CfgNode(dict):\n    pass', module.__dict__)
    module.CfgNode.__module__ = 'yacs.config'
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', module)
    settings = module.CfgNode(MODEL=module.CfgNode(NAME='x'), LR=0.1)
    settings.__dict__['__immutable__'] = True
    torch.save({'model': state_of('little_static'), 'config': settings}, tmp_path / 'c.pth')
    monkeypatch.delitem(sys.modules, 'yacs.config')
    monkeypatch.delitem(sys.modules, 'yacs')
    assert set(convert.read(tmp_path / 'c.pth')) == set(FACTS['little_static']['shapes'])


def test_a_full_disk_loses_nothing(tmp_path, capsys):
    source, out = write(tmp_path / 'c.pth', 'little_static'), tmp_path / 'c.safetensors'
    out.write_text('mine')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files that may not grow behave like a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        assert cli.main(['convert', str(source), str(out)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f'cannot write {out}' in capsys.readouterr().err
    assert out.read_text() == 'mine'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['c.pth', 'c.safetensors']
    for target, words in ((source, 'the checkpoint itself'), (tmp_path, 'is a folder')):
        assert cli.main(['convert', str(source), str(target)]) == 2
        assert words in capsys.readouterr().err
