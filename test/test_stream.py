# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a frame leaves for the next: the ledger that holds a mean, and the memory."""

from dataclasses import replace
import math

import cv2
import numpy as np
import pytest

from adamtl_ros.camera import Camera
from adamtl_ros.network import checkpoint
from adamtl_ros.runtime.ego_motion import moved_logits
from adamtl_ros.runtime.ego_motion import moved_results
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.geometry import geometry
from adamtl_ros.runtime.geometry import seen_by
from adamtl_ros.runtime.motion import CELL
from adamtl_ros.runtime.motion import Flow
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import GAP_S
from adamtl_ros.runtime.stream import Known
from adamtl_ros.runtime.stream import PROBE
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.runtime.stream import TOLERANCE
from networks import random_network

COSTS = np.array([0.22, 0.27, 0.33, 0.38, 0.46, 0.55, 0.61, 0.74, 0.86, 1.0])
"""Of the sets of blocks of a made-up policy."""

SETTINGS = Settings(mode='adaptive', budget=0.5, cap=0.9, tasks=('semseg', 'depth'))


class Policy:
    """Takes the set whose loss and price are least; frames gain differently from more blocks."""

    def __init__(self, gains: np.ndarray) -> None:
        """Begin with frames that gain as much as that from all blocks."""
        self.gains = gains
        prices, usual = np.linspace(0, 6, 400), np.geomspace(0.05, 2, 40)
        worth = usual[:, None] * (1 - COSTS) ** 2 + prices[:, None, None] * COSTS
        self._means, self._prices = COSTS[worth.argmin(-1)].mean(-1)[::-1], prices[::-1]

    def price(self, target: float) -> float:
        """Return the price that gave this mean for frames that are not those that come."""
        return float(np.interp(target, self._means, self._prices))

    @staticmethod
    def cost(gain: float, price: float, cap: float) -> float:
        """Return what a frame costs."""
        total = gain * (1 - COSTS) ** 2 + price * COSTS
        return float(COSTS[np.where(COSTS <= cap, total, np.inf).argmin()])


def scenes(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Return what frames gain: alike, ever harder, mixed, or one scene after the other."""
    generator = np.random.default_rng(seed)
    if kind == 'easy':
        return np.full(count, 0.08)
    if kind == 'hard':
        return np.full(count, 1.8)
    if kind == 'drift':
        return np.geomspace(0.08, 1.8, count)
    if kind == 'mixed':
        return generator.uniform(0.05, 2, count)
    return np.repeat(generator.uniform(0.05, 2, count // 60 + 1), 60)[:count]


@pytest.mark.parametrize('kind', ['easy', 'hard', 'drift', 'mixed', 'scenes'])
@pytest.mark.parametrize(('budget', 'cap'), [
    (0.35, 0.6), (0.5, 0.9), (0.5, 1.0), (0.65, 1.0), (0.8, 1.0), (1.0, 1.0)])
def test_the_mean_is_held_whatever_comes_and_no_frame_costs_more_than_the_cap(kind, budget, cap):
    policy, stream = Policy(scenes(kind, 400)), Stream()
    settings = replace(SETTINGS, budget=budget, cap=cap)
    spent = []
    for gain in policy.gains:
        cost = policy.cost(gain, policy.price(stream.target(settings)), stream.limit(settings))
        stream.spend(cost, settings)
        spent.append(cost)
    assert max(spent) <= cap and stream.limit(settings) <= cap
    means = np.convolve(spent, np.ones(100) / 100, 'valid')
    assert np.abs(means - budget).max() <= TOLERANCE + 1e-9
    assert stream.mean == pytest.approx(np.mean(spent[-settings.horizon:]))


def test_nothing_of_what_still_frames_save_is_spent_beyond_the_tolerance():
    stream = Stream()
    for _ in range(300):
        stream.spend(0.0, SETTINGS, priced=False)
    assert stream.mean == 0.0
    spent = []
    for _ in range(200):
        spent.append(stream.limit(SETTINGS))  # frames that take all that they may
        stream.spend(spent[-1], SETTINGS)
    means = np.convolve(spent, np.ones(100) / 100, 'valid')
    assert means.max() <= SETTINGS.budget + TOLERANCE + 1e-9
    assert max(spent) == SETTINGS.cap and min(spent) == pytest.approx(SETTINGS.budget)


def test_what_the_policy_itself_costs_closes_no_gate():
    stream, settings = Stream(), replace(SETTINGS, budget=1.0, cap=1.0)
    for _ in range(500):
        assert stream.target(settings) == 1.0
        stream.spend(1.0003, settings)
    stream.spend(1.01, settings)
    assert stream.target(settings) < 1.0


def test_a_horizon_of_one_frame_is_a_budget_of_each():
    stream, settings = Stream(), replace(SETTINGS, horizon=1)
    for _ in range(50):
        assert settings.budget <= stream.limit(settings) <= settings.budget + 2 * TOLERANCE
        stream.spend(stream.limit(settings), settings)


def test_there_is_no_mean_before_the_first_frame():
    stream = Stream()
    assert math.isnan(stream.mean)
    stream.spend(0.4, SETTINGS)
    assert stream.mean == 0.4


@pytest.mark.parametrize(('settings', 'words'), [
    ({'cap': 0.4}, 'cap 0.4: no frame may cost more'), ({'horizon': 0}, 'horizon 0: a whole'),
    ({'refresh': 0}, 'refresh 0: a whole'), ({'horizon': 2.5}, 'horizon 2.5: a whole')])
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        replace(SETTINGS, **settings)


# The memory


def picture(seed=0, size=(96, 160)):
    """Return a scene of smooth colours."""
    small = np.random.default_rng(seed).integers(30, 220, (3, 5, 3)).astype(np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def noisy(image, seed, sigma=2.5):
    """Return the picture as a sensor has it."""
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def kept(image, settings=SETTINGS):
    """Return a stream that has computed a picture."""
    stream = Stream()
    assert stream.arrived(1.0, 'front') == ''
    stream.keep(image, 'key', settings, 'result')
    return stream


def test_a_still_picture_with_noise_is_known():
    stream = kept(noisy(picture(), 0))
    assert all(stream.recall(noisy(picture(), seed), 'key', SETTINGS) == 'result'
               for seed in range(1, SETTINGS.refresh))


@pytest.mark.parametrize('offset', [0, CELL // 2, 37])
def test_a_small_thing_that_moves_is_seen(offset):
    before, now = noisy(picture(), 0), picture()
    now[20 + offset:20 + offset + 6, 60 + offset:60 + offset + 6] += 25
    assert kept(before).recall(noisy(now, 1), 'key', SETTINGS) is None


def test_what_changes_slowly_is_seen():
    stream = kept(picture())
    found = [stream.recall(np.clip(picture() + step * 0.5, 0, 255).astype(np.uint8), 'key',
                           SETTINGS) for step in range(1, 12)]
    assert found[0] == 'result' and found[-1] is None


def test_a_frame_is_computed_now_and_then():
    stream, settings = kept(picture()), replace(SETTINGS, refresh=7)
    found = [stream.recall(picture(), 'key', settings) for _ in range(8)]
    assert found == ['result'] * 6 + [None, None]


@pytest.mark.parametrize(('stamp', 'source', 'words'), [
    (1.0, 'front', 'a stamp of 1.000 s follows one of 1.000 s'),
    (0.9, 'front', 'a stamp of 0.900 s follows one of 1.000 s'),
    (1.1 + GAP_S, 'front', '1.1 s lie between two stamps'),
    (1.1, 'rear', "frames of 'rear' follow those of 'front'")])
def test_what_breaks_a_stream_drops_what_it_kept_and_is_told_once(stamp, source, words):
    stream = kept(picture())
    stream.spend(0.3, SETTINGS)
    credit = stream.credit
    assert words in stream.arrived(stamp, source)
    assert stream.recall(picture(), 'key', SETTINGS) is None
    assert stream.credit == credit
    # There is nothing left to be dropped.
    assert stream.arrived(stamp, source) == ''


def test_frames_in_order_are_no_break():
    stream = kept(picture())
    assert all(stream.arrived(1.0 + n / 15, 'front') == '' for n in range(1, 40))
    assert stream.recall(picture(), 'key', SETTINGS) == 'result'


def test_without_reuse_nothing_is_kept_or_recalled():
    off = replace(SETTINGS, reuse=False)
    assert kept(picture()).recall(picture(), 'key', off) is None
    assert kept(picture(), off).recall(picture(), 'key', SETTINGS) is None
    assert kept(picture()).recall(picture(), 'other', SETTINGS) is None


def scene(offset=0, seed=0):
    """Return a textured scene, from a camera that has turned by so many pixels."""
    generator = np.random.default_rng(seed)
    wide = cv2.resize(generator.integers(0, 255, (16, 80, 3)).astype(np.uint8), (480, 96),
                      interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(wide[:, offset:offset + 160])


def expected(limit):
    """Return what frames cost within a limit of a made-up policy, and how much errors rise."""
    return limit, 0.5 * (1 - limit)


def played(pictures, settings, stream=None):
    """Return what is done with each picture, and what it costs."""
    stream, done = stream or Stream(), []
    for image in pictures:
        if stream.recall(image, 'key', settings) is not None:
            done.append(('reused', 0.0))
        else:
            followed, due = stream.follow(image, 'key', settings, expected)
            if followed is not None:
                assert followed[0] == 'result' and not due
                done.append(('warped', 0.0))
            else:
                cost = settings.cap if due else min(settings.budget, stream.limit(settings))
                done.append(('key' if due else 'computed', cost))
        stream.spend(done[-1][1], settings, priced=done[-1][0] == 'computed')
        assert done[-1][1] <= settings.cap
        if done[-1][0] in ('key', 'computed'):
            stream.keep(image, 'key', settings, 'result', best=done[-1][0] == 'key')
    return done


@pytest.mark.parametrize(('budget', 'cap'), [
    (0.2, 1.0), (0.35, 1.0), (0.5, 1.0), (0.5, 0.8), (0.75, 1.0), (0.9, 1.0)])
def test_a_slow_camera_has_key_frames_as_often_as_the_budget_pays_for_them(budget, cap):
    settings = replace(SETTINGS, budget=budget, cap=cap)
    done = played([scene(number) for number in range(200)], settings)
    assert {what for what, _ in done} == {'key', 'warped'} and done[0][0] == 'key'
    spent = [cost for _, cost in done]
    means = np.convolve(spent, np.ones(100) / 100, 'valid')
    assert np.abs(means - budget).max() <= TOLERANCE
    # Evenly: never two more in a row than needed.
    apart = np.diff([number for number, (what, _) in enumerate(done) if what == 'key'][1:])
    assert apart.max() - apart.min() <= 1


def test_where_every_frame_shows_something_else_each_is_computed_within_the_budget():
    done = played([scene(0, seed) for seed in range(60)], SETTINGS)
    assert done[0][0] == 'key'
    assert [what for what, _ in done[1:]] == ['computed'] * 59
    assert np.mean([cost for _, cost in done[10:]]) == pytest.approx(SETTINGS.budget)


def test_it_is_seen_when_a_fast_camera_slows_down():
    stream = Stream()
    played([scene(0, seed) for seed in range(20)], SETTINGS, stream)
    done = [what for what, _ in played(
        [scene(number, 99) for number in range(2 * PROBE + 4)], SETTINGS, stream)]
    assert 'warped' not in done[:2] and done[PROBE + 2:].count('warped') >= PROBE // 3


def test_a_cut_is_not_warped_over():
    pictures = [scene(number) for number in range(9)] + [scene(number, 1) for number in range(9)]
    done = [what for what, _ in played(pictures, SETTINGS)]
    assert 'warped' in done[:9] and done[9] in ('computed', 'key')


@pytest.mark.parametrize('change', [
    {'warp': False}, {'reuse': False}, {'budget': 0.9, 'cap': 0.9}, {'horizon': 10}])
def test_without_key_frames_every_frame_is_within_the_budget(change):
    """Among them a horizon that is too short for the ledger to hold a key frame."""
    settings = replace(SETTINGS, **change)
    done = played([scene(number) for number in range(40)], settings)
    assert {what for what, _ in done} == {'computed'}


def test_one_is_computed_now_and_then_however_little_is_left_for_it():
    stream, settings = Stream(), replace(SETTINGS, refresh=4)
    played([scene(0)], settings, stream)
    # Nothing is left for a key frame, for good.
    done = []
    for number in range(1, 8):
        stream.credit = -1.0
        done += [what for what, _ in played([scene(number)], settings, stream)]
    assert done == ['warped'] * 3 + ['computed'] + ['warped'] * 3


def test_what_stands_still_is_seen_well_once_there_is_credit():
    stream = Stream()
    stream.credit = -1.0
    done = [what for what, _ in played(
        [noisy(scene(0), seed) for seed in range(9)], SETTINGS, stream)]
    assert done[0] == 'computed' and done.count('key') == 1
    assert done[done.index('key') + 1:] == ['reused'] * (8 - done.index('key'))


@pytest.mark.parametrize('change', [{'warp': False}, {'reuse': False}, {'budget': 0.9}])
def test_settings_may_change_while_it_runs(change):
    stream, number = Stream(), 0
    for settings in (SETTINGS, replace(SETTINGS, **change)) * 2:
        done = [what for what, _ in played(
            [scene(number + step) for step in range(6)], settings, stream)]
        number += 6
        assert ('warped' in done) == (settings is SETTINGS)


# In the engine


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'random.safetensors'
    checkpoint.save(path, random_network('lite'))
    return str(path)


def same(one, other):
    """Return whether two results are alike, bit for bit."""
    return one.outputs.keys() == other.outputs.keys() and all(
        np.array_equal(one.outputs[task], other.outputs[task], equal_nan=True)
        for task in one.outputs)


def test_a_still_scene_is_computed_once_and_costs_nothing(engine):
    settings, stream = replace(SETTINGS, gating_map=True, refresh=10, confidence=True), Stream()
    results = [engine.infer(noisy(picture(), seed), settings, None, stream) for seed in range(20)]
    assert [result.stats.reused for result in results] == ([False] + [True] * 9) * 2
    for result in results[1:10]:
        assert same(result, results[0])
        assert np.array_equal(result.confidence['semseg'], results[0].confidence['semseg'])
        assert result.stats.budget_achieved == result.stats.gmacs == 0.0
        assert not any(result.stats.block_active) and not result.gating_map.any()
        assert math.isnan(result.stats.price) and math.isnan(result.stats.predicted_ms)
    assert not same(results[10], results[0])
    assert results[-1].stats.budget_mean == pytest.approx(np.mean(
        [result.stats.budget_achieved for result in results]))


def test_the_same_frames_in_a_new_stream_have_the_same_results(engine):
    frames = [noisy(picture(number // 4), number, 2.0) for number in range(24)]
    runs = []
    for _ in range(2):
        stream = Stream()
        runs.append([engine.infer(frame, SETTINGS, None, stream) for frame in frames])
    assert any(result.stats.reused for result in runs[0])
    for one, other in zip(*runs):
        assert same(one, other)
        assert one.stats.price == other.stats.price or math.isnan(one.stats.price)
        assert one.stats.budget_achieved == other.stats.budget_achieved <= SETTINGS.cap


def test_a_frame_can_be_computed_again_by_its_price_and_its_cap(engine):
    stream, settings = Stream(), replace(SETTINGS, reuse=False)
    for number in range(12):
        frame = picture(number)
        result = engine.infer(frame, settings, None, stream)
        again = engine.infer(
            frame, replace(settings, cap=result.stats.budget_cap), None,
            Stream(Known(result.stats.price)))
        assert same(again, result)
        assert again.stats.gmacs == result.stats.gmacs


def turning(count, step=1):
    """Return frames of a camera that turns."""
    return [cv2.resize(scene(step * number), (96, 64)) for number in range(count)]


def test_results_of_key_frames_are_warped_to_the_frames_between(engine):
    stream, settings = Stream(), replace(
        SETTINGS, budget=0.6, cap=1.0, confidence=True, gating_map=True, raw=True,
        tasks=('semseg', 'normals', 'depth'))
    results = [engine.infer(frame, settings, None, stream) for frame in turning(60)]
    stats = [result.stats for result in results]
    assert {each.warped for each in stats} == {True, False} and not any(
        each.reused for each in stats)
    turned = 0
    for frame, result in zip(turning(60), results):
        if not result.stats.warped:
            # A key frame: all that there is.
            assert result.stats.budget_achieved > 0.95 and math.isnan(result.stats.price)
            assert result.stats.computed
            key, flow, age = result, Flow(frame), 0
            continue
        age += 1
        motion = flow.to(frame, age)
        camera = seen_by(None, frame.shape[1::-1], frame.shape[1::-1])
        kept = moved_results(key.outputs, motion, camera)
        turned += kept['normals'] is not key.outputs['normals']
        assert all(np.array_equal(
            result.outputs[task], motion.warped(kept[task]), equal_nan=True)
            for task in settings.tasks)
        assert np.array_equal(
            result.confidence['semseg'], motion.warped(key.confidence['semseg']))
        assert result.stats.budget_achieved == result.stats.gmacs == 0.0 and not result.raw
        assert not result.stats.computed and not result.gating_map.any()
        assert math.isnan(result.stats.price) and math.isnan(result.stats.predicted_ms)
    assert turned > 10
    assert np.mean([each.budget_achieved for each in stats]) <= 0.6 + TOLERANCE
    for off in ('warp', 'reuse'):
        blind = Stream()
        assert not any(
            engine.infer(frame, replace(settings, **{off: False}), None, blind).stats.warped
            for frame in turning(4))


def test_computed_frames_are_averaged_with_those_before(engine):
    """Key frames and others alike; the first, and those after a break, are as they are alone."""
    settings = replace(SETTINGS, cap=1.0, budget=0.6, raw=True, confidence=True)
    frames = turning(24)
    stream, plain = Stream(), Stream()
    fused = []
    for number, frame in enumerate(frames):
        if number == 12:
            stream.forget()
        result = engine.infer(frame, settings, None, stream)
        alone = engine.infer(frame, replace(settings, fuse=False), None, plain)
        assert not alone.stats.fused
        fused.append(result.stats.fused)
        if number in (0, 12):
            assert not fused[-1] and result.stats.computed
        else:
            assert fused[-1] == result.stats.computed
        if number == 0:
            assert same(result, alone)
        if fused[-1] and alone.stats.computed and result.stats.size == alone.stats.size:
            # Were it an array of the backend that is remembered, it would be averaged with itself.
            assert not np.array_equal(result.raw['semseg'], alone.raw['semseg'])
            assert result.outputs['depth'].shape == alone.outputs['depth'].shape
    assert fused.count(True) >= 8


def test_what_was_said_before_follows_the_camera(engine):
    camera = Camera(96, 64, 90.0, 80.0, 40.0, 30.0)
    settings = replace(
        SETTINGS, cap=1.0, budget=1.0, raw=True, tasks=('semseg', 'normals', 'depth'))
    lens, stream, turned = geometry(camera, True), Stream(), 0
    before, flow = None, None
    for frame in turning(8, 2):
        result = engine.infer(frame, settings, camera, stream)
        alone = engine.infer(frame, replace(settings, fuse=False), camera, Stream()).raw
        if before is not None:
            assert result.stats.fused
            motion = flow.to(frame, 1)
            moved = moved_logits(before, motion, lens)
            turned += moved['normals'] is not before['normals']
            for task, value in motion.averaged(alone, moved).items():
                np.testing.assert_allclose(result.raw[task], value, rtol=1e-4, atol=1e-5)
        before, flow = result.raw, Flow(frame)
    assert turned >= 5


@pytest.mark.parametrize('off', ['fuse', 'reuse'])
def test_nothing_is_averaged_that_is_not_wanted(engine, off):
    stream, settings = Stream(), replace(SETTINGS, **{off: False, 'warp': False})
    for frame in turning(4):
        result = engine.infer(frame, settings, None, stream)
        # A frame by itself, at the same price.
        alone = engine.infer(
            frame, replace(settings, cap=result.stats.budget_cap), None,
            Stream(Known(result.stats.price)))
        assert not result.stats.fused and same(result, alone)


def test_a_still_frame_that_is_reused_is_not_averaged_again(engine):
    stream = Stream()
    results = [engine.infer(noisy(picture(), seed), SETTINGS, None, stream) for seed in range(4)]
    assert [each.stats.fused for each in results] == [False] * 4
    settings = replace(SETTINGS, refresh=3)
    stream = Stream()
    results = [engine.infer(noisy(picture(), seed), settings, None, stream) for seed in range(8)]
    assert [each.stats.fused for each in results] == [False] * 3 + ([True] + [False] * 2) + [
        True, False]


def test_a_stream_can_be_computed_again_by_what_is_told_of_its_frames(engine):
    frames = turning(20) + [noisy(turning(20)[-1], seed) for seed in range(3)] + [
        picture(number, (64, 96)) for number in range(12)] + turning(20, 2)
    stream, again = Stream(), Stream()
    kinds = set()
    for frame in frames:
        settings = replace(SETTINGS, cap=1.0)
        result = engine.infer(frame, settings, None, stream)
        stats = result.stats
        again.known = Known(stats.price, stats.reused, stats.warped, stats.fused)
        repeated = engine.infer(frame, replace(settings, cap=stats.budget_cap), None, again)
        assert same(repeated, result)
        for name in ('gmacs', 'reused', 'warped', 'fused', 'size', 'block_active'):
            assert getattr(repeated.stats, name) == getattr(stats, name), name
        kinds.add((stats.reused, stats.warped, math.isnan(stats.price)))
    # Reused, warped, key frames, and those with a price.
    assert len(kinds) == 4


def test_where_the_budget_pays_for_every_gate_none_has_a_price(engine):
    stream, settings = Stream(), Settings(mode='adaptive', budget=1.0, tasks=SETTINGS.tasks)
    for number in range(40):
        stats = engine.infer(picture(number), settings, None, stream).stats
        assert stats.price == 0.0 and all(stats.block_active) and stats.size == (96, 64)


def test_the_price_follows_what_was_spent(engine):
    """With a random policy the mean at a price is anything; the ledger finds the right one."""
    least = engine.min_budget(SETTINGS.tasks)
    # Of any size, all gates cost more than that.
    settings = replace(SETTINGS, budget=max(least, 0.3), cap=0.95, reuse=False)
    stream = Stream()
    spent = [engine.infer(picture(number), settings, None, stream).stats
             for number in range(150)]
    assert len({stats.price for stats in spent}) > 1
    assert np.mean([stats.budget_achieved for stats in spent[50:]]) <= (
        settings.budget + TOLERANCE)
    # Beside all gates, the policy itself.
    assert all(stats.budget_achieved - 1e-3 <= stats.budget_cap <= settings.cap
               for stats in spent)


@pytest.mark.parametrize('change', [
    {'tasks': ('semseg',)}, {'weights': {'semseg': 3.0}}, {'confidence': True}])
def test_other_tasks_or_weights_are_computed_anew(engine, change):
    stream = Stream()
    engine.infer(picture(), SETTINGS, None, stream)
    assert engine.infer(picture(), SETTINGS, None, stream).stats.reused
    assert not engine.infer(picture(), replace(SETTINGS, **change), None, stream).stats.reused


@pytest.mark.parametrize('change', [
    {'budget': 0.7}, {'gating_map': True}, {'raw': True}, {'output_size': 'camera'},
    {'mode': 'shadow'}])
def test_what_can_be_made_of_the_kept_result_is(engine, change):
    stream = Stream()
    before = engine.infer(picture(), SETTINGS, None, stream)
    after = engine.infer(picture(), replace(SETTINGS, **change), None, stream)
    assert after.stats.reused
    if change == {'raw': True}:
        assert set(after.raw) == set(SETTINGS.tasks)
    if change == {'output_size': 'camera'}:
        assert after.outputs['depth'].shape == picture().shape[:2]
    elif 'mode' not in change:
        assert same(before, after)


def test_shadow_publishes_the_dense_results_and_compares_the_stream(engine):
    stream, settings = Stream(), replace(SETTINGS, mode='shadow')
    dense = engine.infer(picture(), Settings(tasks=SETTINGS.tasks))
    first, second = (engine.infer(picture(), settings, None, stream) for _ in range(2))
    unchecked = engine.infer(picture(), replace(settings, compare=False), None, stream)
    assert [each.stats.reused for each in (first, second, unchecked)] == [False, True, False]
    assert all(same(each, dense) for each in (first, second, unchecked))
    assert second.stats.task_agreement == first.stats.task_agreement != {}
    assert second.stats.budget_achieved == 0.0
    assert math.isnan(unchecked.stats.budget_mean)


def test_another_size_camera_or_engine_is_computed_anew(engine, model):
    camera = Camera(160, 96, 100.0, 100.0, 80.0, 48.0)
    other = Engine(model, backend=engine.backend)
    for arguments in [(engine, picture(size=(120, 160)), None), (engine, picture(), camera),
                      (other, picture(), None)]:
        stream = Stream()
        engine.infer(picture(), SETTINGS, None, stream)
        who, image, lens = arguments
        assert not who.infer(image, SETTINGS, lens, stream).stats.reused
