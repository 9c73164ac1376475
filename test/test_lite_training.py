# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training of convolutional networks: what stays, what is drawn, resuming, and the policy."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open
import torch

from adamtl_ros import cli
from adamtl_ros.camera import Camera
from adamtl_ros.camera import CANONICAL_FOCAL
from adamtl_ros.camera import turned
from adamtl_ros.commands import train as command
from adamtl_ros.datasets import open_dataset
from adamtl_ros.network import checkpoint
from adamtl_ros.network.kinds import network_of
from adamtl_ros.network.lite import LITE0
from adamtl_ros.network.lite import LITE2
from adamtl_ros.network.lite import LiteConfig
from adamtl_ros.network.lite_network import features as lite_features
from adamtl_ros.network.lite_network import resized
from adamtl_ros.training import batches
from adamtl_ros.training import lite
from adamtl_ros.training import presence
from adamtl_ros.training import train
from adamtl_ros.training import worth
from adamtl_ros.training.config import read_config
from adamtl_ros.training.losses import distances
from adamtl_ros.training.losses import person_loss
from adamtl_ros.training.losses import plain_loss
from adamtl_ros.training.losses import robust_loss
from adamtl_ros.training.pictures import Pictures
from adamtl_ros.training.pictures import UNKNOWN
from adamtl_ros.training.sets import Sets
from corpus import write_corpus
from networks import CONFIGS

CONFIG = """
sizes: [[64, 96], [64, 96], [96, 64]]
loss: robust
batch: 4
warmup: 2
rate: 2.0e-3
encoder_rate: 5.0e-4
layer_decay: 0.85
last_rate: 0.02
frozen: 2
distill: 1.0
stage: adaptive
policy_rate: 3.0e-3
style: 0.3
ema: 0.9
decay: 0.03
save_every: 100
validate_every: 100
workers: 0
threads: 1
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('lite')
    write_corpus(root / 'train', 8, cameras=True)
    write_corpus(root / 'clips', 8, cameras=True, clips=4)
    torch.manual_seed(0)
    network = network_of(CONFIGS['lite'])
    checkpoint.save(root / 'start.safetensors', network, half=False)
    return root


@pytest.fixture
def settings(folder, tmp_path):
    path = tmp_path / 'train.yaml'
    path.write_text(
        f'{CONFIG}data: [{folder}/train, {folder}/clips]\nper_clip: 1\nval: {folder}/train\n'
        f'out: {tmp_path}/out.safetensors\nstart: {folder}/start.safetensors\n')
    return str(path)


def state(path):
    return torch.load(Path(path).with_suffix('.state.pt'), weights_only=True)


@pytest.mark.slow
def test_frozen_parts_stay_and_the_others_learn(settings, folder, tmp_path):
    assert command.main([settings, 'steps=6']) == 0
    before = checkpoint.load(str(folder / 'start.safetensors')).state_dict()
    after = state(tmp_path / 'out.safetensors')['network']
    for name, value in after.items():
        # What closed pairs and smaller sizes add is 0 at least, and may stay there.
        if not value.is_floating_point() or name in ('policy.pairs', 'policy.smaller'):
            continue
        stays = name.startswith((
            'encoder.stem', 'encoder.stages.0', 'encoder.stages.1', 'policy.typical',
            'policy.prices')) or (
            name.startswith('encoder') and ('depthwise' in name or 'running_' in name))
        assert torch.equal(value, before[name]) == stays, name
    assert (tmp_path / 'out.best.safetensors').is_file()


@pytest.mark.slow
def test_resumed_ends_where_the_uninterrupted_one_does(settings, tmp_path, monkeypatch):
    """Gates, styles, sizes, frames of clips and modes of norms depend on the step alone."""
    whole, parts = tmp_path / 'whole.safetensors', tmp_path / 'parts.safetensors'
    assert command.main([settings, f'out={whole}', 'steps=10']) == 0
    advance, count = train.Trainer.advance, []

    def stop(trainer, frames):
        count.append(frames)
        if len(count) in (3, 8):
            trainer.stopping = True
        return advance(trainer, frames)

    monkeypatch.setattr(train.Trainer, 'advance', stop)
    for code in (130, 130, 0):
        assert command.main([settings, f'out={parts}', 'steps=10']) == code
    assert {tuple(frames['image'].shape[1:3]) for frames in count} == {(64, 96), (96, 64)}
    for part in ('network', 'average'):
        first, second = (state(path)[part] for path in (whole, parts))
        for name, value in first.items():
            assert torch.equal(value, second[name]), name


def test_rates_fall_towards_the_first_layers_and_vectors_do_not_decay(settings):
    trainer = train.Trainer(read_config([settings]))
    network, groups = trainer.network, trainer.optimizer.param_groups
    rates = {id(p): peak for group, peak in zip(groups, trainer.peaks) for p in group['params']}
    for number in range(2, 7):
        block = network.encoder.stages[number][0]
        assert rates[id(block.project.conv.weight)] == pytest.approx(5e-4 * 0.85 ** (6 - number))
    assert rates[id(network.pyramid.last.conv.weight)] == 2e-3
    policy = {id(p) for p in (
        *network.policy.parameters(), network.policy.pairs, network.policy.smaller)}
    for group in groups:
        for parameter in group['params']:
            assert id(parameter) in policy or group['weight_decay'] == (
                0.03 if parameter.ndim > 1 else 0.0)
    learning = {id(p) for p in network.parameters() if p.requires_grad}
    assert set(rates) == learning | policy
    # All that learns is clipped, and shared where there are several processes.
    assert set(rates) <= {id(p) for part in trainer.clipped for p in part}
    trainer.advance(trainer.batches[0])
    assert groups[0]['lr'] == pytest.approx(trainer.peaks[0] / 2)


def test_sets_are_random_at_first_and_then_the_policys(settings):
    trainer = train.Trainer(read_config([settings]))
    network, sets = trainer.network, trainer.sets
    macs = np.array([block.macs for block in network.config.gated])
    least, dense = (
        part(network.config.tasks) for part in (network.cost.minimum, network.cost.dense))
    image = network.inputs(torch.randint(0, 256, (64, 64, 96, 3), dtype=torch.uint8))
    inside = [block.stage >= network.config.coarse for block in network.config.gated[:-1]]

    def drawn(done):
        gates = sets.draw(image, done, np.random.default_rng(0))
        # Blocks of a level that is left out cannot run.
        assert not (gates[:, :-1][:, inside].any(1) & ~gates[:, -1]).any()
        assert torch.equal(gates, sets.draw(image, done, np.random.default_rng(0)))
        return gates

    with torch.no_grad():
        # The first block is worth all, the others nothing.
        network.policy.bias.fill_(-8.0)
        network.policy.bias[:, 0] = 3.0
    assert 0.3 < float(drawn(0.0)[:, 0].float().mean()) < 0.7
    chosen = drawn(0.5)
    assert float(chosen[:, 0].float().mean()) > 0.75
    costs = (chosen.numpy() @ macs + least) / dense
    assert costs.min() < costs.mean() < costs.max()


@pytest.mark.slow
def test_the_policy_learns_what_sets_cost():
    """A closed gate of which depth is a metre off is dear for depth, for no other task."""
    torch.manual_seed(0)
    network = network_of(CONFIGS['lite']).eval()
    tasks, sets = network.config.tasks, Sets(network)
    image = network.inputs(torch.randint(0, 256, (16, 64, 96, 3), dtype=torch.uint8))
    frames = {'semseg': torch.zeros(16, 8, 8, dtype=torch.uint8),
              'human_parts': torch.zeros(16, 8, 8, dtype=torch.uint8),
              'saliency': torch.full((16, 8, 8), 200, dtype=torch.uint8),
              'normals': torch.full((16, 8, 8, 3), 30, dtype=torch.uint8),
              # Nothing is known of edges: they teach nothing, and do no harm.
              'edges': torch.full((16, 8, 8), 255, dtype=torch.uint8),
              'depth': torch.full((16, 8, 8), 1000, dtype=torch.int32)}
    dense = {task: torch.zeros(16, network.config.outputs[task], 4, 4) for task in tasks}
    dense['depth'] += 0.3
    learning = lite.policy_groups(network, 1e-2)
    optimizer = torch.optim.AdamW([{'params': group['params']} for group in learning], lr=0.03)
    rng = np.random.default_rng(0)
    for _ in range(400):
        gates = torch.from_numpy(rng.random((16, len(network.config.gated))) < 0.5)
        gated = {task: value.clone() for task, value in dense.items()}
        gated['depth'][~gates[:, 4]] += 0.5
        loss = sets.lesson(image, gates, (dense, gated), frames, {})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sets.clamp()
    with torch.no_grad():
        alone, pairs = worth.parts(network, lite_features(network.look(image)))
    errors = [(np.exp(said) - 1) ** 2 / 2 for said in (0.3, 0.8)]
    depth = alone[:, tasks.index('depth')].mean(0)
    assert float(depth[4]) == pytest.approx((errors[1] - errors[0]) / errors[0], rel=0.2)
    depth[4] = 0
    assert float(depth.max()) < 0.3 and float(pairs.min()) >= 0
    assert torch.isfinite(alone).all()


def test_the_policy_learns_what_smaller_sizes_cost():
    torch.manual_seed(0)
    network = network_of(CONFIGS['lite']).eval()
    tasks, sets = network.config.tasks, Sets(network)
    image = network.inputs(torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8))
    frames = {task: torch.full((8, 8, 8), 255, dtype=torch.uint8) for task in tasks}
    frames['normals'] = torch.zeros(8, 8, 8, 3, dtype=torch.uint8)
    frames['depth'] = torch.full((8, 8, 8), 1000, dtype=torch.int32)
    dense = {task: torch.zeros(8, network.config.outputs[task], 4, 4) for task in tasks}
    dense['depth'] += 0.3
    small = dense | {'depth': dense['depth'] + 0.1}
    optimizer = torch.optim.AdamW([
        {'params': group['params']} for group in lite.policy_groups(network, 1e-2)], lr=0.01)
    gates = torch.ones(8, len(network.config.gated), dtype=torch.bool)
    for _ in range(300):
        loss = sets.lesson(image, gates, (dense, small), frames, {}, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sets.clamp()
    errors = [(np.exp(said) - 1) ** 2 / 2 for said in (0.3, 0.4)]
    learned = network.policy.smaller.detach()
    assert float(learned[tasks.index('depth'), 0]) == pytest.approx(
        (errors[1] - errors[0]) / errors[0], rel=0.05)
    learned[tasks.index('depth'), 0] = 0
    assert not learned[:, 1].any() and float(learned.max()) < 1e-3


def test_steps_under_sets_run_at_all_sizes(settings):
    """And their outputs are as if the input had been of the full size."""
    trainer = train.Trainer(read_config([settings]))
    network, rng = trainer.network, np.random.default_rng(0)
    places = [trainer.sets.place(rng) for _ in range(200)]
    assert 0.25 < places.count(0) / 200 < 0.55 and set(places) == {0, 1, 2}
    image = network.inputs(trainer.batches[0]['image'])
    gates = torch.ones(len(image), len(network.config.gated), dtype=torch.bool)
    network.eval()
    size = network.config.at(tuple(image.shape[2:])).sizes[2]
    dense, small = lite.forward(network, image, trainer.config, 1.0, gates, size)
    assert {task: value.shape for task, value in dense.items()} == {
        task: value.shape for task, value in small.items()}
    raw = network(resized(image, size))
    shift = np.log(np.sqrt(size[0] * size[1] / (image.shape[2] * image.shape[3])))
    assert torch.allclose(
        small['depth'].mean(), raw['depth'].mean() + shift, atol=0.05 * abs(shift))
    # What sizes cost is learned beside what sets cost, under a policy that already knows these.
    report = [trainer.advance(trainer.batches[step]) for step in range(6)]
    assert all(np.isfinite(each['policy']) for each in report)


def test_normals_of_a_smaller_input_are_those_of_the_full_one():
    """Of one plane before one camera, as the canonical one is taught to see it."""
    camera, size, ran = Camera.nominal(256, 192, 200.0), (192, 256), (160, 224)
    normal = np.array([0.3, -0.5, -0.8124], np.float32)

    def taught(high, wide):
        seen = camera.resized(wide, high)
        vectors = turned(np.broadcast_to(normal, (high, wide, 3)), seen.rays(), Camera.nominal(
            wide, high, CANONICAL_FOCAL).rays())
        return torch.from_numpy(np.ascontiguousarray(vectors.transpose(2, 0, 1))[None]).float()

    full = taught(*size)
    found = lite.enlarged({'normals': taught(*ran)}, ran, size, {'normals': full})['normals']
    cosine = torch.nn.functional.cosine_similarity(found, full, 1)
    assert float(cosine.min()) > np.cos(np.radians(0.7))
    # Without it they would be off.
    plain = torch.nn.functional.interpolate(taught(*ran), size, mode='bilinear')
    assert float(torch.nn.functional.cosine_similarity(plain, full, 1).min()) < np.cos(
        np.radians(3))


def test_under_a_set_the_network_learns_from_what_it_says_dense(settings):
    trainer = train.Trainer(read_config([settings, 'style=1']))
    image = trainer.network.inputs(trainer.batches[0]['image'])
    gates = torch.ones(len(image), len(trainer.network.config.gated), dtype=torch.bool)
    trainer.network.eval()
    for decoder in trainer.network.decoders.values():
        torch.nn.init.normal_(decoder.out.conv.weight)
    # The same styles for both: with every gate open they are the same.
    dense, same = lite.forward(trainer.network, image, trainer.config, 0.0, gates)
    for task, value in dense.items():
        assert torch.allclose(value, same[task], atol=1e-3 * float(value.detach().abs().max()))
    _, under = lite.forward(trainer.network, image, trainer.config, 0.0, ~gates)
    change = (dense['depth'] - under['depth']).abs().max() / dense['depth'].abs().max()
    assert float(change.detach()) > 0.02


def test_weights_tell_the_prices_of_budgets(settings, tmp_path):
    assert command.main([settings, 'steps=2']) == 0
    network = checkpoint.load(str(tmp_path / 'out.safetensors'))
    assert float(network.policy.prices.max()) > 0 and not network.policy.prices[:, -1].any()
    assert float(network.policy.typical.min()) > 0


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for part in ('image', 'person', 'saliency'):
        (tmp_path / 'pictures' / part).mkdir(parents=True)
    for number, size in enumerate(((120, 200), (240, 160), (64, 64))):
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        person = np.full(size, 128, np.uint8)
        person[:, :size[1] // 3], person[:, -size[1] // 3:] = 255, 0
        root = tmp_path / 'pictures'
        cv2.imwrite(str(root / 'image' / f'{number}.jpg'), picture)
        cv2.imwrite(str(root / 'person' / f'{number}.png'), person)
        cv2.imwrite(str(root / 'saliency' / f'{number}.png'), person[::2, ::2])
    return tmp_path / 'pictures'


def test_pictures_teach_what_a_person_is_and_nothing_else(settings, pictures):
    trainer = train.Trainer(read_config([settings, f'pictures={pictures}', 'pictured=0.25']))
    batch = trainer.batches[0]
    assert len(batch['image']) == 4 and len(batch['ids']) == 3
    assert (batch['person'][:3] == 128).all() and (batch['person'][3] != 128).any()
    assert (batch['semseg'][3] == 255).all() and (batch['human_parts'][3] == 255).all()
    assert not batch['depth'][3].any() and not batch['normals'][3].any()
    assert (batch['edges'][3] == 255).all() and batch['saliency'][3].any()
    assert set(batch['person'][3].unique().tolist()) <= {0, 128, 255}
    again = trainer.batches[0]
    assert all(torch.equal(batch[key], again[key]) for key in batch if key != 'ids')
    report = trainer.advance(batch)
    assert np.isfinite(report['loss'])


def test_weights_do_not_tell_where_things_lay(settings, pictures, tmp_path):
    assert command.main([settings, 'steps=1', f'pictures={pictures}', 'pictured=0.25']) == 0
    with safe_open(str(tmp_path / 'out.safetensors'), 'pt') as file:
        assert str(tmp_path) not in str(file.metadata())


def test_a_teacher_tells_of_pictures_what_they_have_no_labels_for(settings, folder, pictures):
    """Depth, normals and edges of pictures follow it; rendered frames have labels of their own."""
    given = [settings, 'style=0.0', 'distill=2.0']
    alone, taught = (
        train.Trainer(read_config([*given, f'pictures={pictures}', 'pictured=0.25', *more]))
        for more in ([], [f'teacher={folder}/start.safetensors']))
    batch = alone.batches[0]
    told = []
    for trainer in (alone, taught):
        # Another network than the teacher, and the same one in both.
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for task in ('semseg', 'human_parts', 'saliency', 'normals', 'edges', 'depth'):
                weight = trainer.network.decoders[task].out.conv.weight
                weight += torch.randn(weight.shape, generator=generator) * 0.1
        trainer.network.eval()
        torch.manual_seed(5)
        told.append(trainer.loss(batch, 0)[0])
    image = taught.network.inputs(batch['image'])
    with torch.no_grad():
        ours, theirs = taught.network(image), taught.teacher(image)
    expected = distances(*(
        {task: each[task][3:] for task in ('normals', 'edges', 'depth')}
        for each in (ours, theirs)))
    # One of four frames is a picture.
    assert float(expected) > 0.01
    assert float((told[1] - told[0]).detach()) == pytest.approx(2 * float(expected) / 4, rel=1e-3)


def test_pictures_may_tell_classes(settings, pictures, capsys):
    given = [settings, 'steps=1', f'pictures={pictures}', 'pictured=0.25']
    (pictures / 'semseg').mkdir()
    for number in range(3):
        label = np.full((40, 60), 255, np.uint8)
        label[:, :30] = 17
        cv2.imwrite(str(pictures / 'semseg' / f'{number}.png'), label)
    trainer = train.Trainer(read_config(given))
    batch = trainer.batches[0]
    assert set(batch['semseg'][3].unique().tolist()) <= {17, 255}
    assert (batch['semseg'][3] == 17).any()
    assert np.isfinite(trainer.advance(batch)['loss'])
    for path in (pictures / 'semseg').iterdir():
        cv2.imwrite(str(path), np.full((40, 60), 18, np.uint8))
    assert command.main(given) == 2
    assert 'class 18 of 18' in capsys.readouterr().err
    (pictures / 'semseg' / '1.png').unlink()
    assert command.main(given) == 2
    assert 'semseg/1.png' in capsys.readouterr().err


def test_what_is_known_of_people_alone():
    person = torch.tensor([[255, 0], [128, 128]], dtype=torch.uint8)
    person = person.repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    outputs = torch.zeros(1, 4, 2, 2)
    # Of four classes one is of people: it has a quarter, and yes counts three times.
    expected = (3 * np.log(4) + np.log(4 / 3)) / 2
    assert float(person_loss(outputs, person, [2])) == pytest.approx(expected)
    outputs[:, 2, 0, 0], outputs[:, 2, 0, 1] = 20, -20
    assert float(person_loss(outputs, person, [2])) < 1e-6
    assert float(person_loss(outputs, torch.full_like(person, 128), [2])) == 0


@pytest.mark.parametrize('change, words', [
    (lambda root: [path.unlink() for path in (root / 'image').iterdir()], 'no image/*.jpg'),
    (lambda root: (root / 'person' / '1.png').unlink(), 'person/1.png'),
    (lambda root: (root / 'saliency' / '0.png').write_bytes(b'x'), 'saliency/0.png')])
def test_pictures_that_lack_something(settings, pictures, capsys, change, words):
    change(pictures)
    assert command.main([settings, 'steps=3', f'pictures={pictures}', 'pictured=0.5']) == 2
    assert words in capsys.readouterr().err


def test_a_teacher_with_nothing_to_say(settings, folder, pictures, capsys):
    assert command.main([
        settings, 'steps=3', f'pictures={pictures}', 'tasks=[saliency, semseg]', 'pictured=0.5',
        f'teacher={folder}/start.safetensors']) == 2
    assert 'nothing to say' in capsys.readouterr().err


def test_styles_move_between_frames_and_contents_stay():
    torch.manual_seed(0)
    x = torch.randn(32, 3, 8, 8) * torch.arange(1, 33).view(32, 1, 1, 1)
    y = lite.mix_styles(x, torch.full((32, 1, 1, 1), 0.1), torch.randperm(32))

    def plain(value):
        return (value - value.mean((2, 3), keepdim=True)) / value.std((2, 3), keepdim=True)

    assert torch.allclose(plain(x), plain(y), atol=1e-3)
    before, after = x.std((2, 3))[:, 0], y.std((2, 3))[:, 0]
    assert not torch.allclose(before, after, rtol=0.05)
    assert after.min() > 0.9 * before.min() and after.max() < 1.1 * before.max()


def test_norms_of_the_decoders_settle(settings):
    trainer = train.Trainer(read_config([settings]))
    for done, moves in ((0.5, True), (0.8, False)):
        lite.set_modes(trainer.network, trainer.config, done)
        assert trainer.network.pyramid.last.norm.training == moves
        assert not trainer.network.encoder.stages[5][0].project.norm.training
    lite.set_modes(trainer.network, read_config([settings, 'frozen=0']), 0.5)
    assert trainer.network.encoder.stages[5][0].project.norm.training


@pytest.mark.parametrize('change', [
    ['tasks=[depth]'], ['stage=static', 'distill=0', 'network={policy: none}',
                        'tasks=[semseg, edges]'],
    # Half of the blocks.
    ['network={stages: [[1, 3, 1, 1, 8], [1, 3, 2, 2, 8], [1, 5, 2, 2, 16], [2, 3, 2, 2, 24], '
     '[1, 5, 1, 2, 24], [2, 5, 2, 2, 32], [1, 3, 1, 2, 40]]}'],
    # Another encoder, from nothing.
    ['start=', 'frozen=0', 'sizes=', 'network={input_size: [32, 64], stem: 8, pyramid: 8, '
     'fine: 8, head: 8, stages: [[1, 3, 1, 1, 8], [1, 3, 2, 2, 8], [1, 3, 2, 2, 8], '
     '[1, 3, 2, 2, 8], [1, 3, 1, 2, 8], [2, 3, 2, 2, 8], [1, 3, 1, 2, 8]]}']])
def test_references_train_alike(settings, tmp_path, change):
    assert command.main([settings, 'steps=2', *change]) == 0
    network = checkpoint.load(str(tmp_path / 'out.safetensors'))
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_an_epoch_sees_one_frame_of_each_clip(folder):
    pool = batches.open_pool(
        [str(folder / 'train'), str(folder / 'clips')], ('depth',), 'train', True, 1)
    assert len(pool) == 8 + 2
    seen = [tuple(data.ids[index] for data, index in (pool.pick(i, epoch) for i in range(10)))
            for epoch in range(12)]
    assert all(ids[:8] == seen[0][:8] and ids[8][:2] == 'c0' and ids[9][:2] == 'c1'
               for ids in seen)
    assert {ids[8] for ids in seen} == {f'c0_{number}' for number in range(4)}
    assert len(batches.Pool([open_dataset(folder / 'clips')])) == 8


def test_validation_is_of_the_canonical_camera(tmp_path):
    root = write_corpus(tmp_path / 'corpus', 1, cameras=True)
    meta = root / 'meta' / 'f0.json'
    meta.write_text(meta.read_text().replace('172.0', '344.0'))
    pool = batches.open_pool([str(root)], ('depth',), 'val', True)
    # At half the size 172 pixels of focal length are left: depth is true as it is.
    assert int(next(batches.unchanged(pool, (96, 128), 1, 0))['depth'].max()) == 2500
    assert int(next(batches.unchanged(pool, (192, 256), 1, 0))['depth'].max()) == 1250


def test_edges_that_are_not_known_teach_nothing():
    outputs = torch.randn(1, 1, 4, 4)
    label = torch.full((1, 4, 4), 255)
    assert float(plain_loss('edges', outputs, label)) == 0
    label[0, 0, :2] = torch.tensor([1, 0])
    known = plain_loss('edges', outputs[..., :1, :2], label[..., :1, :2])
    assert float(plain_loss('edges', outputs, label)) == pytest.approx(float(known))


def test_robust_losses():
    # Normals at right angles are sqrt(2) apart; a logit of 0 is half wrong.
    normals = torch.tensor([[[[255, 128, 128], [0, 0, 0]]]], dtype=torch.uint8)
    outputs = torch.tensor([0.0, 2.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert float(robust_loss('normals', outputs, normals)) == pytest.approx(2 ** 0.5, abs=0.01)
    saliency = torch.full((1, 1, 2), 255)
    assert float(robust_loss('saliency', torch.zeros(1, 1, 1, 2), saliency)) == pytest.approx(
        np.log(2) + 0.5)
    depth = torch.tensor([[[2000, 0]]])
    assert float(robust_loss('depth', torch.zeros(1, 1, 1, 2), depth)) == pytest.approx(
        np.log(2) + 0.1)


@pytest.mark.slow
def test_the_policy_is_worth_more_than_a_fixed_set():
    """Of two equal blocks one matters in half of the frames, the other in the other half."""
    torch.manual_seed(0)
    network = network_of(CONFIGS['lite'])
    rng = np.random.default_rng(0)
    gates, tasks = len(network.config.gated), len(network.config.tasks)
    one, two = (number for number, block in enumerate(network.config.gated)
                if block.name in ('encoder.stages.3.1', 'encoder.stages.3.2'))

    def look(count):
        side = rng.choice([-1.0, 1.0], count)
        noise = rng.normal(size=(count, network.config.features()))
        return side > 0, (side[:, None] + noise).astype(np.float32)

    def rises(closed, left):
        return 0.005 * closed.sum(-1) + np.where(
            left[:, None], closed[..., one], closed[..., two])

    left, seen = look(200)
    closed = 1 - worth.sample(network, 8 * 200, rng).reshape(200, 8, gates)
    shares = worth.fit(network, worth.Measured(
        seen, closed, np.repeat(rises(closed, left)[..., None], tasks, 2).astype(np.float32)),
        steps=300)
    assert shares['policy'] > shares['fixed'] + 0.2
    left, seen = look(100)
    macs = np.array([block.macs for block in network.config.gated])
    every = ((np.arange(1 << gates)[:, None] >> np.arange(gates)) & 1).astype(bool)
    losses = rises(~every[None].repeat(100, 0), left).mean(0)
    chosen = worth.choose(network, seen, 3.0)
    assert len(np.unique(chosen, axis=0)) > 1
    allowed = every @ macs <= (chosen @ macs).mean()
    assert rises(~chosen[:, None], left).mean() < losses[allowed].min()


@pytest.mark.slow
def test_fit_stage(settings, folder, tmp_path, capsys):
    """Sizes become half of what is measured, prices and the head fit; nothing else changes."""
    more = write_corpus(tmp_path / 'more', 12, cameras=True)
    arguments = [settings, 'stage=fit', 'frames=0', f'data={more}', 'per_clip=0',
                 f'start={folder}/start.safetensors', 'network={presence: true}']
    assert command.main(arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert 'but for presence' in said[0] and said[-1].endswith(
        'presence: 12 frames have human_parts on more than 1% of the picture and 0 have none: at '
        'least 5 of each are needed')
    for number in range(6):
        label = more / 'human_parts' / f'f{number}.png'
        cv2.imwrite(str(label), np.zeros((192, 256), np.uint8))
    out = tmp_path / 'out.safetensors'
    before = checkpoint.load(str(folder / 'start.safetensors'))
    for part in (out, tmp_path / 'again.safetensors'):
        assert command.main([*arguments, f'out={part}']) == 0
        assert 'the head of presence misses' in capsys.readouterr().err
        network = checkpoint.load(str(part))
        assert network.config.presence and network.presence.weight.abs().max() > 0
        smaller = [each.policy.smaller.detach() for each in (before, network)]
        for name, value in network.state_dict().items():
            if not name.startswith(('presence', 'policy.prices', 'policy.smaller', 'policy.typ')):
                torch.testing.assert_close(value, before.state_dict()[name], rtol=1e-3, atol=1e-6)
        arguments[5], before = f'start={out}', network
    # Begun with zeros, what is measured is halved first, and three quarters of it stand then.
    assert not smaller[0].equal(smaller[1]) and float(smaller[0].max()) > 0
    torch.testing.assert_close(smaller[1], 1.5 * smaller[0], rtol=0.01, atol=1e-4)
    with safe_open(str(tmp_path / 'again.safetensors'), 'np') as file:
        assert file.metadata()['trained'] == 'fit stage, 12 frames; fit stage, 12 frames'


def test_what_is_surely_of_a_person_teaches_the_head_of_presence(pictures):
    """A picture of nobody counts, and one of which nothing is known does not."""
    for path, value in zip(sorted((pictures / 'person').iterdir()), (
            presence.SURE + 1, presence.SURE, UNKNOWN)):
        cv2.imwrite(str(path), np.full((64, 64), value, np.uint8))
    frames = list(presence.pictured(Pictures(str(pictures)), (64, 96), 0))
    assert [int(frame['human_parts'].min()) for frame in frames] == [1, 0]
    assert {frame['image'].shape for frame in frames} == {(1, 64, 96, 3)}


@pytest.fixture
def quickly(monkeypatch):
    """Let the policy learn for a few steps: it is what is measured that the stage is about."""
    monkeypatch.setattr(worth, 'fit', partial(worth.fit, steps=100))


@pytest.mark.slow
def test_policy_stage_teaches_the_head_of_presence(settings, folder, tmp_path, capsys, quickly):
    more = write_corpus(tmp_path / 'more', 12, cameras=True)
    for number in range(6):
        label = more / 'human_parts' / f'f{number}.png'
        cv2.imwrite(str(label), np.zeros((192, 256), np.uint8))
    assert command.main([
        settings, 'stage=policy', 'frames=0', 'sets=2', f'data={more}', 'per_clip=0',
        f'start={folder}/start.safetensors', 'network={presence: true}']) == 0
    assert 'the head of presence misses' in capsys.readouterr().err
    network = checkpoint.load(str(tmp_path / 'out.safetensors'))
    assert network.config.presence and network.presence.weight.abs().max() > 0


@pytest.mark.slow
def test_policy_stage(settings, folder, tmp_path, capsys, quickly):
    arguments = [settings, 'stage=policy', 'frames=0', 'sets=8', f'data={folder}/train',
                 'per_clip=0', f'start={folder}/start.safetensors']
    more = write_corpus(tmp_path / 'more', 12, cameras=True)
    assert command.main([*arguments, f'data={more}']) == 0
    said = capsys.readouterr().err
    assert 'the policy explains' in said and 'wrote' in said and 'frame 12/12' in said
    before = checkpoint.load(str(folder / 'start.safetensors')).state_dict()
    network = checkpoint.load(str(tmp_path / 'out.safetensors'))
    for name, value in network.state_dict().items():
        if name.startswith('policy'):
            continue
        assert torch.allclose(value, before[name], rtol=1e-3, atol=1e-6), name
    assert network.policy.prices.max() > 0
    # Random weights lose little by a smaller size, but each task something else.
    smaller = network.policy.smaller
    assert float(smaller.min()) >= 0 and smaller.unique().numel() > 3
    with safe_open(str(tmp_path / 'out.safetensors'), 'np') as file:
        assert file.metadata()['trained'] == 'policy stage, 12 frames'
    first = network.state_dict()
    assert command.main([*arguments, f'data={more}']) == 0
    again = checkpoint.load(str(tmp_path / 'out.safetensors')).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    capsys.readouterr()
    assert command.main([*arguments, f'data={more}', 'network={policy: none}']) == 2
    assert 'has no policy' in (said := capsys.readouterr().err) and said.count('\n') == 2
    assert command.main(arguments) == 2
    assert 'has 8 frames: the policy needs at least 10' in capsys.readouterr().err


@pytest.mark.parametrize('change, words', [
    (['sizes=[[60, 96]]'], 'multiples of 32'), (['sizes=[[64]]'], 'multiples of 32'),
    (['sizes=[64]'], 'expected tuple'), (['frozen=9'], 'has 7 stages'), (['frozen=-1'], 'least'),
    (['layer_decay=0.0'], 'above 0'), (['pictured=1.5'], 'from 0 to 1'), (['style=-1'], '0 to 1'),
    (['stage=open', 'distill=0'], 'there are static, adaptive, policy and fit'),
    (['pictures=/nowhere'], '*.jpg'), (['prices=[1, 2]'], 'prices'),
    (['teacher=/nowhere.safetensors'], 'no model'),
    (['frames=3'], 'at least 10'), (['sets=1'], 'at least 2'),
    (['stage=policy', 'start='], 'start=WEIGHTS'), (['stage=fit', 'start='], 'of training'),
    (['network={policy: none}'], 'has no policy'),
    (['network={stages: [1, 2]}'], 'network='), (['network={embed_dim: 8}'], 'unknown setting'),
    (['network={stem: 16}'], 'other shapes'), (['data='], 'data is empty'),
    (['data=[/nowhere]'], 'no data set'), (['start=', 'preset=swin_tiny', 'sizes='], 'frozen=2')])
def test_bad_settings(settings, capsys, change, words):
    assert command.main([settings, 'steps=1', *change]) == 2
    said = capsys.readouterr().err
    assert words in said and 'Traceback' not in said


def test_without_cameras_depth_is_not_learned(settings, tmp_path, capsys):
    root = write_corpus(tmp_path / 'plain', 4)
    assert command.main([settings, 'steps=1', f'data={root}', 'start=']) == 2
    said = capsys.readouterr().err
    assert 'have no intrinsics' in said and said.count('\n') == 1
    assert command.main([
        settings, 'steps=1', f'data={root}', f'val={root}', 'tasks=[semseg, edges]']) == 0


def classifier(stages):
    """Return random weights of an EfficientNet-Lite under the names of its PyTorch port."""
    rng = torch.Generator().manual_seed(0)
    state = {}

    def layer(conv, norm, *shape):
        state[f'{conv}.weight'] = torch.randn(shape, generator=rng)
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            state[f'{norm}.{name}'] = torch.rand(shape[0], generator=rng) + 0.5
        state[f'{norm}.num_batches_tracked'] = torch.tensor(1)

    layer('_conv_stem', '_bn0', 32, 3, 3, 3)
    inputs = 32
    for number, (kernel, expand, outputs) in enumerate(
            (kernel, expand, outputs) for count, kernel, _, expand, outputs in stages
            for _ in range(count)):
        name, hidden = f'_blocks.{number}.', inputs * expand
        if expand > 1:
            layer(f'{name}_expand_conv', f'{name}_bn0', hidden, inputs, 1, 1)
        layer(f'{name}_depthwise_conv', f'{name}_bn1', hidden, 1, kernel, kernel)
        layer(f'{name}_project_conv', f'{name}_bn2', outputs, hidden, 1, 1)
        inputs = outputs
    layer('_conv_head', '_bn1', 8, inputs, 1, 1)
    state |= {'_fc.weight': torch.zeros(4, 8), '_fc.bias': torch.zeros(4)}
    return state


LITE1 = tuple((deep[0], *wide[1:]) for deep, wide in zip(LITE2, LITE0))


@pytest.mark.slow
@pytest.mark.parametrize('stages', [LITE0, LITE1, LITE2])
def test_an_efficientnet_starts_a_training(stages, tmp_path, capsys):
    weights, out = classifier(stages), tmp_path / 'encoder.safetensors'
    torch.save(weights, tmp_path / 'c.pth')
    assert cli.main(['convert', str(tmp_path / 'c.pth'), str(out)]) == 0
    said = capsys.readouterr().out
    assert 'encoder alone' in said and 'no place in the network: _conv_head.weight' in said
    network = checkpoint.load(str(out), to_train=True)
    assert network.config.stages == stages
    assert (network.config.name == 'glasses') == (stages == LITE2)
    # The preset's own encoder starts the preset, smaller sizes included.
    reduced = (0.73, 0.62, 0.42) if stages == LITE2 else ()
    assert network.config == LiteConfig(network.config.name, stages=stages, reduced=reduced)
    last = network.encoder.stages[6][0]
    number = sum(stage[0] for stage in stages) - 1
    assert torch.equal(last.expand.norm.bias, weights[f'_blocks.{number}._bn0.bias'])
    assert torch.equal(last.project.conv.weight, weights[f'_blocks.{number}._project_conv.weight'])
    assert torch.equal(network.encoder.stem.norm.weight, weights['_bn0.weight'])


def test_an_efficientnet_that_does_not_fit(tmp_path, capsys):
    def refused(state):
        torch.save(state, tmp_path / 'c.pth')
        assert cli.main(['convert', str(tmp_path / 'c.pth'), str(tmp_path / 'x')]) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and not (tmp_path / 'x').exists()
        return said

    good = classifier(LITE0)
    assert '_blocks.3._se_reduce.weight is of no known kind' in refused(
        {**good, '_blocks.3._se_reduce.weight': torch.zeros(1)})
    assert 'encoder.stages.1.0.expand.norm.bias is missing' in refused(
        {name: value for name, value in good.items() if name != '_blocks.1._bn0.bias'})
    assert '_bn0.bias is (3,), not (32,)' in refused({**good, '_bn0.bias': torch.zeros(3)})
    assert 'stages' in refused(
        {name: value for name, value in good.items() if not name.startswith('_blocks.15.')})
    deep = tuple((n + 2 * (s in (3, 4, 5)), *rest) for s, (n, *rest) in enumerate(LITE2))
    assert 'at most 8 and 12' in refused(classifier(deep))
