# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The trainer: its stages, resuming, several processes, and what can go wrong."""

import json
import math
import os
from pathlib import Path
import re
import resource
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from adamtl_ros.commands import train as command
from adamtl_ros.datasets import open_dataset
from adamtl_ros.files import ASIDE
from adamtl_ros.network import checkpoint
from adamtl_ros.network.config import PRESETS
from adamtl_ros.tasks import TASKS
from adamtl_ros.training import batches
from adamtl_ros.training import train
from adamtl_ros.training.config import read_config
from adamtl_ros.training.losses import distances
from adamtl_ros.training.losses import normals_of
from adamtl_ros.training.losses import paper_loss
from adamtl_ros.training.objectives import efficiency_loss
from adamtl_ros.training.objectives import gain_loss
from corpus import write_corpus
from processes import until

CONFIG = """
preset: swin_tiny
network: {input_size: [48, 64], depths: [1, 2], heads: [1, 2], window: [6, 8], embed_dim: 16,
          decoder_dim: 8, policy_hidden: 8}
tasks: [semseg, normals, depth]
batch: 4
warmup: 2
save_every: 2
validate_every: 2
workers: 0
threads: 1
"""


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp('corpus'), 8)


@pytest.fixture
def settings(corpus, tmp_path):
    path = tmp_path / 'train.yaml'
    path.write_text(f'{CONFIG}data: {corpus}\nval: {corpus}\nout: {tmp_path}/out.safetensors\n')
    return str(path)


def state(path):
    return torch.load(Path(path).with_suffix('.state.pt'), weights_only=True)


@pytest.mark.slow
def test_three_stages(settings, tmp_path, capsys):
    static, opened = tmp_path / 'static.safetensors', tmp_path / 'open.safetensors'
    assert command.main([settings, f'out={static}', 'steps=6']) == 0
    assert command.main([
        settings, f'out={opened}', 'stage=open', f'start={static}', 'steps=60',
        'policy_rate=0.05', 'save_every=60', 'validate_every=60']) == 0
    said = capsys.readouterr().err
    assert float(said.split('loss ')[-1].split()[0]) < 0.1, 'the gates do not open'
    before, after = (checkpoint.load(str(path)).state_dict() for path in (static, opened))
    for name, value in after.items():
        assert name.startswith('policy') or torch.equal(value, before[name]), name
    for objective in (['objective=gain', 'distill=1.0'],
                      ['objective=efficiency', 'alternate=4', 'efficiency=mixed'],
                      ['objective=efficiency', f'teacher={static}', 'distill=1.0', 'loss=paper']):
        out = tmp_path / 'out.safetensors'
        assert command.main([
            settings, 'stage=adaptive', f'start={opened}', 'steps=4', *objective]) == 0
        last = checkpoint.load(str(out)).state_dict()
        for part in ('policy.stages.0.tokens.weight1', 'encoder.stem.proj.weight',
                     'decoders.depth.predict.weight'):
            if part in last:
                assert not torch.equal(after[part], last[part]), (objective, part)
        assert command.main([settings, 'steps=4']) == 2
        assert 'stage=adaptive, not static' in capsys.readouterr().err
        for file in tmp_path.glob('out.*'):
            file.unlink()


def test_a_single_task_and_another_policy(settings, tmp_path, capsys):
    out, other = tmp_path / 'one.safetensors', tmp_path / 'other.safetensors'
    assert command.main([settings, f'out={out}', 'tasks=[depth]', 'steps=2']) == 0
    assert checkpoint.load(str(out)).config.tasks == ('depth',)
    assert command.main([settings, 'steps=2']) == 0
    assert command.main([
        settings, f'out={other}', f'start={tmp_path}/out.safetensors', 'steps=2',
        'tasks=[semseg, depth]', 'network={policy: task_agnostic}']) == 0
    network = checkpoint.load(str(other))
    assert (network.config.policy, network.config.tasks) == ('task_agnostic', ('semseg', 'depth'))
    assert 'but for policy' in capsys.readouterr().err
    edges = tmp_path / 'edges.safetensors'
    assert command.main([
        settings, f'out={edges}', f'start={out}', 'tasks=[edges]', 'steps=1']) == 0
    assert checkpoint.load(str(edges)).config.tasks == ('edges',)
    assert 'but for policy, decoders.edges' in capsys.readouterr().err
    assert command.main([
        settings, f'out={tmp_path}/x.safetensors', f'start={out}', 'tasks=[depth]',
        'network={embed_dim: 24}']) == 2
    assert 'encoder has other shapes' in capsys.readouterr().err


def test_averaged_weights_and_the_best_are_kept(settings, tmp_path):
    assert command.main([settings, 'steps=6', 'ema=0.9', 'rate=0.02']) == 0
    kept, raw = checkpoint.load(f'{tmp_path}/out.safetensors').state_dict(), state(
        tmp_path / 'out.safetensors')
    name = 'encoder.stem.proj.weight'
    assert torch.allclose(kept[name], raw['average'][name], atol=1e-3)
    assert not torch.allclose(kept[name], raw['network'][name], atol=1e-3)
    assert math.isfinite(raw['best'])
    assert (tmp_path / 'out.best.safetensors').is_file()


@pytest.mark.slow
def test_killed_and_resumed(settings, tmp_path, capsys):
    """A run that is killed goes on from its last state to the weights of one that was not."""
    whole, parts = tmp_path / 'whole.safetensors', tmp_path / 'parts.safetensors'
    arguments = [settings, 'steps=10', 'stage=adaptive', 'distill=1.0']
    assert command.main([*arguments, f'out={whole}']) == 0
    process = subprocess.Popen(
        [sys.executable, '-c', 'import sys, time\n'
         'from adamtl_ros.commands import train as command\n'
         'from adamtl_ros.training import train\n'
         'advance = train.Trainer.advance\n'
         'def stuck(self, frames):\n'
         '    if self.step == 5:\n        print(flush=True)\n        time.sleep(600)\n'
         '    return advance(self, frames)\n'
         'train.Trainer.advance = stuck\n'
         'command.main(sys.argv[1:])', *arguments, f'out={parts}'],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b'\n'
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert state(parts)['step'] == 4
    # It goes on in a process that would compute on another number of threads.
    torch.set_num_threads(2)
    capsys.readouterr()
    assert command.main([*arguments, f'out={parts}', 'threads=0']) == 0
    assert 'resuming at step 4 with threads=1, as before, not 2' in capsys.readouterr().err
    first, second = (state(path)['network'] for path in (whole, parts))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert command.main([*arguments, f'out={parts}', 'steps=11', 'threads=2']) == 0
    assert 'with threads=2, not 1: results are rounded' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['train_glasses.yaml', 'reproduction.yaml'])
def test_the_recipes_name_settings_that_there_are(name, corpus):
    recipe = Path(__file__).parents[1] / 'config' / name
    config = read_config([str(recipe), f'data={corpus}'])
    base = PRESETS[config.preset]
    config.check_kind(config.network_config(base, base.classes))


def test_where_weights_cannot_be_written_no_step_is_taken(settings, capsys, monkeypatch):
    def no(*_):
        raise AssertionError('a step was taken')

    monkeypatch.setattr(train.Trainer, 'advance', no)
    assert command.main([settings, 'out=/proc/x.safetensors', 'steps=2']) == 2
    assert '/proc' in (said := capsys.readouterr().err)
    assert 'cannot be written' in said


def test_a_finished_training_says_so(settings, tmp_path, capsys):
    arguments = [settings, f'out={tmp_path}/done.safetensors', 'steps=2']
    assert command.main(arguments) == 0
    capsys.readouterr()
    assert command.main(arguments) == 0
    said = ' '.join(capsys.readouterr().err.split())
    assert 'finished: ' in said
    assert 'its 2 steps; to go on give more of them, steps=N' in said
    assert 'resuming' not in said
    assert command.main([*arguments, 'steps=3']) == 0
    assert 'resuming at step 2' in ' '.join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize('first', [True, False])
def test_stopped_within_a_step_and_resumed(settings, tmp_path, monkeypatch, capsys, first):
    """Ctrl-C before the weights have moved, or just after, changes nothing of the result."""
    whole, parts = tmp_path / 'whole.safetensors', tmp_path / 'parts.safetensors'
    arguments = ('steps=6', 'stage=adaptive', 'distill=1.0', 'ema=0.9', 'save_every=50')
    assert command.main([settings, f'out={whole}', *arguments]) == 0
    move, calls = torch.optim.AdamW.step, []

    def step(*given):
        calls.append(given)
        if len(calls) == 3 and first:
            signal.raise_signal(signal.SIGINT)
        move(*given)
        if len(calls) == 3 and not first:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, 'step', step)
            assert command.main([settings, f'out={parts}', *arguments]) == 130
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert 'stopped at step 3' in capsys.readouterr().err
    assert state(parts)['step'] == len(calls) == 3
    assert command.main([settings, f'out={parts}', *arguments]) == 0
    for part in ('network', 'average'):
        one, two = (state(path)[part] for path in (whole, parts))
        for name, value in one.items():
            assert torch.equal(value, two[name]), name


def test_a_second_ctrl_c_does_not_wait_and_saves_nothing(settings, tmp_path, monkeypatch):
    def step(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    assert command.main([settings, 'steps=2']) == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(torch.optim.AdamW, 'step', step)
        assert command.main([settings, 'steps=6']) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert state(tmp_path / 'out.safetensors')['step'] == 2


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_and_all_end_well(settings, tmp_path):
    out = tmp_path / 'out.safetensors'
    process = subprocess.Popen(
        [sys.executable, '-c', 'import signal, sys\n'
         'from adamtl_ros.commands import train as command\n'
         'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
         'sys.exit(command.main(sys.argv[1:]))', settings, 'steps=100000', 'workers=2'],
        stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(out.is_file, process)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and 'Traceback' not in said, said
    assert f'stopped at step {state(out)["step"]}' in said


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one_and_stop_together(
        settings, tmp_path, monkeypatch, capsys):
    """As torchrun starts them.  The signal reaches one of them, and not the one that saves."""
    given = [settings, 'steps=100000', 'rate=0.003', 'loss=paper', 'tasks=[semseg]', 'workers=0']
    out = tmp_path / 'two.safetensors'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = [subprocess.Popen(
        [sys.executable, '-m', 'adamtl_ros.commands.train', *given, f'out={out}'],
        stderr=subprocess.PIPE, text=True, env={
            **os.environ, 'OMP_NUM_THREADS': '1', 'RANK': str(rank), 'LOCAL_RANK': '0',
            'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)})
        for rank in (0, 1)]
    try:
        said = []
        for line in processes[0].stderr:
            said.append(line)
            if 'validation at step 10:' in line:
                break
        processes[1].send_signal(signal.SIGINT)
        rest = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [130, 130], rest
    assert f'stopped at step {state(out)["step"]}' in rest[0]

    advance = train.Trainer.advance

    def stopped(trainer, frames):
        trainer.stopping = trainer.step == 9
        return advance(trainer, frames)

    monkeypatch.setattr(train.Trainer, 'advance', stopped)
    assert command.main([*given, f'out={tmp_path}/one.safetensors']) == 130
    curves = []
    for text in (capsys.readouterr().err, ''.join(said)):
        found = re.findall(r'validation at step (\d+): dense ([\d.]+)', text)
        assert [int(step) for step, _ in found] == [2, 4, 6, 8, 10]
        curves.append([float(loss) for _, loss in found])
    assert curves[0][-1] < 0.96 * curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=0.01)


def test_what_processes_share_is_the_mean(settings, monkeypatch):
    trainer = train.Trainer(read_config([settings]))
    trainer.world = 2
    for part in trainer.clipped:
        for parameter in part:
            parameter.grad = torch.ones_like(parameter)
    # The other one has a gradient of 2 everywhere, and so its loss.
    monkeypatch.setattr(train.distributed, 'all_reduce', lambda flat: flat.add_(1.0))
    report = {'loss': 3.0}
    trainer._share_gradients(report)
    assert report == {'loss': 2.5}
    assert all((p.grad == 1.5).all() for part in trainer.clipped for p in part)


def test_a_step_that_fails_leaves_the_network_as_it_was(settings, monkeypatch):
    trainer = train.Trainer(read_config([settings]))
    assert any('running_mean' in name for name in trainer.network.state_dict())
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    loss = trainer.loss
    with monkeypatch.context() as patch:
        patch.setattr(trainer, 'loss', lambda *given: (
            loss(*given)[0] * math.nan, {}, None))
        with pytest.raises(train.TrainingError, match='the loss is nan'):
            trainer.advance(trainer.batches[0])
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    trainer.advance(trainer.batches[0])
    assert any(not torch.equal(value, before[name])
               for name, value in trainer.network.state_dict().items() if 'running_' in name)


def test_each_process_and_step_has_noise_of_its_own(settings, monkeypatch):
    drawn = {}
    for rank in (0, 1, 0):
        trainer = train.Trainer(read_config([settings, 'seed=1']))
        trainer.rank, trainer.world = rank, 2
        monkeypatch.setattr(trainer, '_share_gradients', lambda report: None)
        loss = trainer.loss
        for step in (0, 1):
            noise = []
            monkeypatch.setattr(trainer, 'loss', lambda *given, noise=noise, loss=loss: (
                noise.append(torch.rand(4).tolist()), loss(*given))[1])
            trainer.advance(trainer.batches[step])
            assert drawn.setdefault((rank, step), noise) == noise
    assert len({str(noise) for noise in drawn.values()}) == 4


def test_only_products_decay(settings):
    trainer = train.Trainer(read_config([settings, 'stage=adaptive', 'objective=efficiency']))
    network = trainer.network
    products = {
        id(module.weight) for part in (network.encoder, network.decoders)
        for module in part.modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))}
    decayed = {id(p) for group in trainer.optimizer.param_groups
               for p in group['params'] if group['weight_decay']}
    assert decayed == products
    assert len(trainer.optimizer.param_groups) == 3
    assert sum(len(group['params']) for group in trainer.optimizer.param_groups) == len(
        list(network.parameters()))


def test_a_network_without_a_policy(settings, tmp_path, capsys):
    out = tmp_path / 'none.safetensors'
    network = yaml.safe_load(CONFIG)['network'] | {'policy': 'none'}
    assert command.main([settings, f'out={out}', f'network={network}', 'steps=2']) == 0
    assert checkpoint.load(str(out)).config.policy == 'none'
    for stage in ('open', 'adaptive'):
        assert command.main([
            settings, f'out={tmp_path}/next.safetensors', f'start={out}', 'steps=2',
            f'stage={stage}']) == 2
        assert f'stage={stage}: the network has no policy' in capsys.readouterr().err
    assert command.main([
        settings, f'out={tmp_path}/next.safetensors', f'start={out}', 'steps=1',
        'stage=adaptive', 'network={policy: task_aware}']) == 0


def test_what_is_written_lies_beside_its_place_once(settings, tmp_path, monkeypatch):
    from safetensors import torch as tensors
    written = []

    def watched(write):
        def call(content, path, *more):
            written.append(Path(path).name.split('-', 2)[-1])
            assert Path(path).name.startswith(ASIDE) and Path(path).parent == tmp_path
            write(content, path, *more)
        return call

    monkeypatch.setattr(tensors, 'save_file', watched(tensors.save_file))
    monkeypatch.setattr(torch, 'save', watched(torch.save))
    assert command.main([settings, 'steps=1', 'val=']) == 0
    assert written == ['out.state.pt', 'out.safetensors']
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'out.safetensors', 'out.state.pt', 'train.yaml']


def test_workers_read_the_same_batches(settings, tmp_path):
    for name, workers in (('none', 0), ('one', 1)):
        out = tmp_path / f'{name}.safetensors'
        assert command.main([settings, f'out={out}', 'steps=3', f'workers={workers}']) == 0
    first, second = (
        state(tmp_path / f'{name}.safetensors')['network'] for name in ('none', 'one'))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_loss_that_is_no_number(settings, tmp_path, capsys):
    assert command.main([settings, 'steps=2']) == 0
    assert command.main([
        settings, 'steps=9', 'rate=1.0e+30', 'policy_rate=1.0e+30', 'warmup=0']) == 2
    said = capsys.readouterr().err
    assert re.search(r'at step \d, frames f\d, f\d, f\d, f\d', said)
    assert 'keeps step 2' in said and 'Lower rate=' in said
    assert state(tmp_path / 'out.safetensors')['step'] == 2
    assert checkpoint.load(f'{tmp_path}/out.safetensors')
    assert command.main([settings, 'steps=4']) == 0


def test_a_full_disk(settings, tmp_path, capsys):
    assert command.main([settings, 'steps=2']) == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        assert command.main([settings, 'steps=4']) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert 'cannot write' in said and 'keeps step 2' in said
    assert not list(tmp_path.glob(f'{ASIDE}*'))
    assert command.main([settings, 'steps=4']) == 0
    assert state(tmp_path / 'out.safetensors')['step'] == 4


def test_damaged_files(settings, tmp_path, capsys):
    root = write_corpus(tmp_path / 'corpus', 8)
    assert command.main([settings, f'data={root}', 'steps=1', 'loss=paper']) == 0
    (root / 'depth' / 'f3.png').write_bytes(b'no picture')
    assert command.main([settings, f'data={root}', 'steps=9', 'loss=paper', 'workers=1']) == 2
    said = capsys.readouterr().err
    assert 'f3.png' in said and 'keeps step' in said and 'Traceback' not in said
    file = tmp_path / 'out.state.pt'
    file.write_bytes(file.read_bytes()[:1000])
    assert command.main([settings, 'steps=9']) == 2
    assert 'out.state.pt is damaged' in capsys.readouterr().err


def test_tensorboard_log(settings, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert command.main([settings, 'steps=2', 'log=true']) == 0
    events = EventAccumulator(str(tmp_path / 'out.log')).Reload()
    assert {'train/loss', 'train/data', 'val/dense'} <= set(events.Tags()['scalars'])


@pytest.mark.parametrize('change, words', [
    (['speed=1'], 'unknown setting'), (['steps=many'], 'expected int'), (['x'], 'key=value'),
    (['ema=1.0'], 'ema=1.0: from 0 to below 1'), (['blocks_target=1.5'], 'blocks_target=1.5'),
    (['steps=.inf'], 'expected int'), (['steps=1.5'], 'expected int'),
    (['steps=true'], 'expected int'), (['steps=0'], 'at least'),
    (['stage=later'], 'static, open, adaptive'), (['preset=tiny'], 'choose one of'),
    (['budgets=[0.9, 0.2]'], 'ascending'), (['prices=[1, 0, 1]'], 'above 0'),
    (['prices=[1, 2, 3]'], 'one for each of'), (['data=/nowhere'], 'no data set'),
    (['batch=99'], 'fewer frames'), (['rate=-1.0'], 'above 0'), (['rate=.nan'], 'above 0'),
    (['tasks=[colour]'], 'unknown task'), (['network={size: 3}'], 'unknown setting'),
    (['network={embed_dim: 17}', 'start='], 'embed_dim'),
    (['stage=open'], 'start=WEIGHTS'), (['distill=1.0'], 'teacher=WEIGHTS'),
    (['teacher=x.safetensors'], 'distill'), (['device=cuda'], 'not there'),
    (['device=cuda:x'], 'cpu, cuda or cuda:N'), (['device=tpu'], 'cpu, cuda or cuda:N'),
    (['out=weights.pth'], '.safetensors'), (['start=/nowhere.safetensors'], 'no model'),
    (['data={'], 'train.yaml')])
def test_bad_settings(settings, capsys, change, words):
    if 'device=cuda' in change and torch.cuda.is_available():
        pytest.skip('there is a CUDA device')
    assert command.main([settings, *change]) == 2
    assert words in capsys.readouterr().err


def test_a_batch_depends_on_its_step_alone(corpus):
    data = open_dataset(corpus, ('semseg',))
    pool = batches.Pool([data])
    whole = batches.StepBatches(pool, [(48, 64)], 4, 0)
    halves = [batches.StepBatches(pool, [(48, 64)], 4, 0, rank, 2) for rank in (0, 1)]
    for step in (0, 3):
        batch, parts = whole[step], [half[step] for half in halves]
        assert batch['ids'] == [name for pair in zip(*(p['ids'] for p in parts)) for name in pair]
        assert torch.equal(batch['image'][::2], parts[0]['image'])
        assert torch.equal(batch['semseg'][1::2], parts[1]['semseg'])
    assert sorted(whole[0]['ids'] + whole[1]['ids']) == sorted(data.ids)
    assert [b['ids'] for b in whole.loader(1, 3, 0)] == [whole[1]['ids'], whole[2]['ids']]


def test_mirroring_keeps_labels_true(corpus):
    frame = open_dataset(corpus)[0]
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        changed = batches.augment(frame, rng)
        normals, valid = normals_of(torch.from_numpy(changed['normals'])[None])
        wall = changed['semseg'] == 0
        x = normals[0, 0].numpy()[wall & valid[0].numpy()]
        assert np.ptp(x) < 1e-6
        seen.add(int(np.sign(x[0])))
        # Wherever the box went, its labels went along.
        assert (changed['human_parts'][changed['semseg'] == 17] != 0).all()
        assert changed['image'].shape == frame['image'].shape
    assert seen == {-1, 1}


def network_of(settings):
    return train.Trainer(read_config([settings])).network


def test_gains_teach_which_gates_to_open(settings):
    """Where some tokens are worth their cost and others not, the policy's targets say so."""
    network = network_of(settings)
    budgets, tasks = torch.tensor([0.6, 0.8]), network.config.tasks
    routing = network.forward_policy(
        torch.randn(2, 3, 48, 64), budgets, tasks, 0.0, measured=True)
    for gate in routing.gates:
        gate.grad = torch.randn_like(gate)
    gains = torch.randn(2, len(network.cost.blocks))
    with pytest.raises(ValueError, match='backward'):
        gain_loss(network, network.forward_policy(
            torch.randn(1, 3, 48, 64), budgets[:1], tasks, measured=True),
            gains[:1], budgets[:1], tasks)
    routing.tokens = [part.detach().requires_grad_() for part in routing.tokens]
    routing.blocks = [part.detach().requires_grad_() for part in routing.blocks]
    gain_loss(network, routing, gains, budgets, tasks).backward()
    push = torch.cat([part.grad.sum(1) for part in routing.tokens], 1)
    worth = torch.cat([
        -gate.grad / (block.dense / gate.shape[1])
        for gate, block in zip(routing.gates, network.cost.blocks)], 1)
    for row in range(2):
        opened, closed = worth[row][push[row] < 0], worth[row][push[row] > 0]
        assert len(opened) and len(closed) and opened.min() > closed.max()
    # The larger budget wants more gates open.
    assert (push[1] < 0).sum() > (push[0] < 0).sum()
    # A block is worth what was measured.
    push = torch.cat([part.grad.sum(1) for part in routing.blocks], 1)
    worth = gains / torch.tensor([float(block.dense) for block in network.cost.blocks])
    for row in range(2):
        opened, closed = worth[row][push[row] < 0], worth[row][push[row] > 0]
        # The one at the border may be either.
        assert len(opened) + len(closed) >= len(worth[row]) - 1
        assert not len(opened) or not len(closed) or opened.min() > closed.max()
    assert (push[0] > 0).any() and (push[1] < 0).any()
    # A stage that is priced high is closed before the others.
    routing.blocks = [part.detach().requires_grad_() for part in routing.blocks]
    gain_loss(network, routing, gains.abs(), budgets, tasks, (1e6, 1.0)).backward()
    push = torch.cat([part.grad.sum(1) for part in routing.blocks], 1)
    assert (push[:, :network.config.depths[0]] >= 0).all() and (push < 0).any()


def test_the_gain_of_a_block_is_what_is_lost_without_it(settings):
    trainer = train.Trainer(read_config([settings]))
    network, image = trainer.network, torch.randn(2, 3, 48, 64)
    tasks = network.config.tasks
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features ** -0.5)
    gates = [torch.ones(2, block.tokens) for block in network.cost.blocks]
    # In the second frame the first block is closed.
    gates[0][1] = 0
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gains = trainer._block_gains(image, tasks, gates)
    assert gains.shape == (2, len(gates)) and network.training
    assert all((network.state_dict()[name] == value).all() for name, value in before.items())
    # With all others open, a block brings back all that is missing.
    network.eval()
    with torch.no_grad():
        dense = network(image)
        for block in range(len(gates)):
            closed = [torch.ones_like(gate) for gate in gates]
            closed[block].zero_()
            lost = distances(network(image, tasks, closed), dense)
            assert float(gains[0, block]) == pytest.approx(float(lost[0]), rel=1e-3)
            if block == 0:
                assert float(gains[1, 0]) == pytest.approx(float(lost[1]), rel=1e-3)
    assert (gains[0] > 0).all()


def test_efficiency_objective(settings):
    network = network_of(settings)
    routing = network.forward_policy(
        torch.randn(2, 3, 48, 64), torch.tensor([0.5, 0.5]), network.config.tasks, free=True)
    routing.opened = [torch.ones(2, len(part[0])) for part in routing.opened]
    routing.gates = [torch.full_like(part, 0.5) for part in routing.gates]
    for how in ('total', 'layer', 'mixed'):
        found = efficiency_loss(network, routing, 0.9, 0.5, True, how)
        assert float(found) == pytest.approx(0.01)
    routing.gates[0] = torch.ones_like(routing.gates[0])
    # 192 tokens of 16 channels all open, 2 x 48 of 32 half open.
    assert float(efficiency_loss(network, routing, 1.0, 0.5, True, 'total')) == pytest.approx(
        0.25 ** 2)
    assert float(efficiency_loss(network, routing, 1.0, 0.5, False, 'total')) == pytest.approx(
        (192 / 288 * 0.5) ** 2)
    assert float(efficiency_loss(network, routing, 1.0, 0.5, True, 'layer')) == pytest.approx(
        0.25 / 3)


def test_losses_of_the_paper():
    # One edge pixel of four, logit 0 everywhere: ln 2 (0.95 + 3 * 0.05) / 4.
    edges = torch.tensor([[[1, 0], [0, 0]]])
    assert float(paper_loss('edges', torch.zeros(1, 1, 2, 2), edges)) == pytest.approx(
        math.log(2) * (0.95 + 0.15) / 4)
    # A quarter salient: 0.75 on it, 0.25 on the rest.
    assert float(paper_loss('saliency', torch.zeros(1, 1, 2, 2), edges * 255)) == pytest.approx(
        math.log(2) * (0.75 + 3 * 0.25) / 4)
    normals = torch.tensor([[[[255, 128, 128], [0, 0, 0]]]], dtype=torch.uint8)
    outputs = torch.tensor([0.0, 2.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert float(paper_loss('normals', outputs, normals)) == pytest.approx(2 / 3, abs=0.01)
    depth = torch.tensor([[[2000, 0]]])
    assert float(paper_loss('depth', torch.zeros(1, 1, 1, 2), depth)) == pytest.approx(1.0)
    nothing = paper_loss('semseg', torch.zeros(1, 4, 1, 2), torch.full((1, 1, 2), 255))
    assert float(nothing) == 0


def test_distance_to_a_teacher_is_zero_for_the_teacher():
    generator = torch.Generator().manual_seed(0)
    outputs = {
        task: torch.randn(1, record.channels, 4, 4, generator=generator)
        for task, record in TASKS.items()}
    assert float(distances(outputs, outputs).max()) == pytest.approx(0, abs=1e-5)
    for task in TASKS:
        other = {**outputs, task: outputs[task] + torch.randn(
            outputs[task].shape, generator=generator)}
        assert float(distances(other, outputs).min()) > 0.05, task


def test_settings_are_kept_with_the_weights(settings, tmp_path):
    assert command.main([settings, 'steps=1']) == 0
    from safetensors import safe_open
    with safe_open(f'{tmp_path}/out.safetensors', 'pt') as file:
        kept = json.loads(file.metadata()['settings'])
    assert kept['steps'] == 1 and kept['tasks'] == ['semseg', 'normals', 'depth']
    assert str(tmp_path) not in str(kept)
