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
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import CELL
from adamtl_ros.runtime.stream import GAP_S
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
        stream.spend(0.0, SETTINGS, reused=True)
    assert stream.mean == 0.0
    spent = []
    for _ in range(200):
        spent.append(stream.limit(SETTINGS))  # frames that take all that they may
        stream.spend(spent[-1], SETTINGS)
    means = np.convolve(spent, np.ones(100) / 100, 'valid')
    assert means.max() <= SETTINGS.budget + TOLERANCE + 1e-9
    assert max(spent) == SETTINGS.cap and min(spent) == pytest.approx(SETTINGS.budget)


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


def moved(image, *places):
    """Return the picture with something where cells of these (row, column) are."""
    image = image.copy()
    for row, column in places:
        image[row * CELL:(row + 1) * CELL, column * CELL:(column + 1) * CELL] ^= 64
    return image


def test_what_has_not_moved_nor_is_near_keeps_a_better_result_for_some_frames():
    stream, settings = Stream(), replace(SETTINGS, refresh=5)
    assert not stream.still(picture(), 'key', settings).any()
    stream.keep(picture(), 'key', settings, 'result', 0.9)
    for number in range(6):
        stream.recall(picture(), 'key', settings)
        still = stream.still(moved(noisy(picture(), 1), (4, 6)), 'key', settings)
        expected = np.full((12, 20), number < 4)
        expected[3:6, 5:8] = False
        assert np.array_equal(still, expected)
    stream.keep(picture(), 'key', settings, 'result', 0.9)
    still = stream.still(picture(), 'key', settings)
    assert still.all() and stream.stays(still, 0.5).all()
    assert stream.stays(still, 0.94).all() and not stream.stays(still, 0.96).any()
    assert not stream.still(picture(), 'other', settings).any()
    assert not stream.still(picture(), 'key', replace(settings, reuse=False)).any()
    stream.forget()
    assert not stream.still(picture(), 'key', settings).any()


def test_each_cell_is_compared_with_what_its_own_result_was_computed_from():
    stream = Stream()
    stream.keep(picture(), 'key', SETTINGS, 'good', 0.9)
    now = moved(picture(), (4, 6))
    still = stream.still(now, 'key', SETTINGS)
    stream.keep(now, 'key', SETTINGS, 'joined', 0.5, stream.stays(still, 0.5))
    assert stream.still(now, 'key', SETTINGS).all()
    # What moved has the worse result, and what is around it.
    assert np.array_equal(stream.stays(np.ones((12, 20), bool), 0.6), still)
    back = stream.still(picture(), 'key', SETTINGS)
    assert np.array_equal(back, still)
    # Slow changes of what was kept add up; of what was computed since they do not yet.
    def brighter(by):
        image = now.copy()
        image[64:] = np.clip(image[64:].astype(int) + by, 0, 255)
        return image

    stream.keep(brighter(1), 'key', SETTINGS, 'joined', 0.5, still)
    again = stream.still(brighter(2), 'key', SETTINGS)
    assert again[:7].all() and not again[8:].any()
    stream.keep(brighter(1), 'key', SETTINGS, 'joined', 0.5)
    assert stream.still(brighter(2), 'key', SETTINGS).all()


def test_a_bare_wall_keeps_nothing_where_the_camera_moves():
    wall, stream = picture(), Stream()
    wall[:, :120] = 200
    stream.keep(wall, 'key', SETTINGS, 'result', 0.9)
    assert stream.still(wall, 'key', SETTINGS).all()
    # A thing before it moves, or the camera does: most of what would tell has moved.
    assert stream.still(moved(wall, (2, 3)), 'key', SETTINGS).mean() > 0.9
    turned = wall.copy()
    turned[:, 120:] = picture(1)[:, 120:]
    assert not stream.still(turned, 'key', SETTINGS).any()


def test_a_better_frame_is_due_where_most_stands_still_and_none_is_kept():
    stream, everything = Stream(), np.ones((12, 20), bool)
    assert not stream.due(everything, SETTINGS)
    stream.keep(picture(), 'key', SETTINGS, 'result', 0.5)
    assert stream.due(everything, SETTINGS)
    assert not stream.due(everything, replace(SETTINGS, reuse=False))
    little = everything.copy()
    little[:7] = False
    assert not stream.due(little, SETTINGS)
    stream.keep(picture(), 'key', SETTINGS, 'result', 0.9)
    assert not stream.due(everything, SETTINGS)
    # Who computes a frame again says what it was.
    stream.price = math.nan
    assert stream.due(little, SETTINGS)
    stream.price = 0.1
    assert not stream.due(everything, SETTINGS)


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
            Stream(result.stats.price))
        assert same(again, result)
        assert again.stats.gmacs == result.stats.gmacs


def passing(count):
    """Return frames of a scene that stands still but for a small thing that passes."""
    scene = cv2.resize(picture(), (96, 64))
    return [moved(noisy(scene, number, 1.5), (5, number % 12))
            for number in range(count)]


def test_a_scene_with_a_small_thing_that_moves_is_seen_well_once(engine):
    stream, settings = Stream(), replace(
        SETTINGS, budget=0.6, cap=1.0, refresh=20, confidence=True)
    frames = passing(100)
    results = [engine.infer(frame, settings, None, stream) for frame in frames]
    stats = [result.stats for result in results]
    assert stats[0].kept == 0.0 and stats[0].budget_achieved <= 0.6
    # The second one finds that it stands still, and there is credit for all gates.
    assert stats[1].kept == 0.0 and stats[1].budget_achieved > 0.95
    assert math.isnan(stats[1].price) and not stats[1].reused
    changes = 0
    for before, result in zip(results[1:19], results[2:20]):
        assert 0.5 < result.stats.kept < 1.0 and result.stats.budget_achieved < 0.95
        # Nothing moves there.
        for task in SETTINGS.tasks:
            assert np.array_equal(result.outputs[task][:8], results[1].outputs[task][:8]), task
        assert np.array_equal(
            result.confidence['semseg'][:8], results[1].confidence['semseg'][:8])
        changes += not same(result, before)
    # Where it passes, frames are their own.
    assert changes > 12
    assert any(math.isnan(each.price) for each in stats[20:24])
    # Beside all gates, the policy itself.
    assert all(each.budget_achieved <= each.budget_cap + 1e-3 for each in stats)
    assert np.mean([each.budget_achieved for each in stats]) <= 0.6 + TOLERANCE
    blind = Stream()
    assert not any(
        engine.infer(frame, replace(settings, reuse=False), None, blind).stats.kept
        for frame in frames[:4])


def test_where_nothing_is_kept_a_better_frame_can_be_computed_again(engine):
    stream, settings = Stream(), replace(SETTINGS, cap=1.0)
    results = [engine.infer(frame, settings, None, stream) for frame in passing(3)]
    assert [each.stats.kept > 0 for each in results] == [False, False, True]
    for frame, result in zip(passing(2), results):
        again = engine.infer(
            frame, replace(settings, cap=result.stats.budget_cap), None,
            Stream(result.stats.price))
        assert same(again, result) and again.stats.gmacs == result.stats.gmacs


def test_a_cap_of_the_budget_leaves_no_better_frames(engine):
    """What stands still keeps its results all the same, and none is worse than it must be."""
    stream, settings = Stream(), replace(SETTINGS, budget=0.6, cap=0.6)
    stats = [engine.infer(frame, settings, None, stream).stats for frame in passing(12)]
    assert all(each.budget_achieved <= 0.6 for each in stats)
    assert all(0.5 < each.kept < 1.0 for each in stats[2:])


def test_the_price_follows_what_was_spent(engine):
    """With a random policy the mean at a price is anything; the ledger finds the right one."""
    least = engine.min_budget(SETTINGS.tasks)
    settings = replace(SETTINGS, budget=(0.95 + least) / 2, cap=0.95, reuse=False)
    stream = Stream()
    spent = [engine.infer(picture(number), settings, None, stream).stats
             for number in range(150)]
    assert len({stats.price for stats in spent}) > 1
    assert np.mean([stats.budget_achieved for stats in spent[50:]]) <= (
        settings.budget + TOLERANCE)
    assert all(stats.budget_achieved <= stats.budget_cap <= settings.cap for stats in spent)


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
