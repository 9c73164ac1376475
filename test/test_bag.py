# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""`adamtl bag`: figures, report, output bag, labels, many recordings, errors."""

from collections.abc import Sequence
import csv
from dataclasses import replace
import json
import math
from pathlib import Path
import random
import re
import tracemalloc
from types import SimpleNamespace
from typing import Any

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from adamtl_ros.bag import energy
from adamtl_ros.bag import many
from adamtl_ros.bag import measures
from adamtl_ros.bag.compare import Evaluation
from adamtl_ros.bag.compare import Plan
from adamtl_ros.bag.compare import recommend
from adamtl_ros.bag.compare import saved_low
from adamtl_ros.bag.many import recommend_over_all
from adamtl_ros.bag.measures import Difference
from adamtl_ros.bag.measures import LatestOnly
from adamtl_ros.bag.measures import Sample
from adamtl_ros.bag.measures import Scenes
from adamtl_ros.bag.measures import Series
from adamtl_ros.bag.measures import Worst
from adamtl_ros.bag.one import evaluate_bag
from adamtl_ros.bag.one import write_json
from adamtl_ros.bag.output import typestore
from adamtl_ros.bag.reading import Bag
from adamtl_ros.bag.reading import intrinsics_of
from adamtl_ros.bag.reading import RecordedFrame
from adamtl_ros.bag.reading import RecordedFrames
from adamtl_ros.bag.sample import TOPIC
from adamtl_ros.bag.sample import write_sample
from adamtl_ros.bag.truth import array_of
from adamtl_ros.bag.truth import FolderLabels
from adamtl_ros.bag.truth import label_of
from adamtl_ros.commands import bag as command
from adamtl_ros.commands.bag import find_bags
from adamtl_ros.nodes.live import digest
from adamtl_ros.nodes.live import Live
from adamtl_ros.runtime.agreement import agreement
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.images import published_images
from adamtl_ros.runtime.images import stats_fields
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream
from adamtl_ros.tasks import TASKS

FRAMES = 6


MODEL: list[str] = []
"""A tenth of the work of the shipped one."""


@pytest.fixture(scope='module', autouse=True)
def engine(weights: str) -> Engine:
    """Return the model that recordings are run with, if a test names no other."""
    MODEL[:] = ['--model', weights]
    return Engine(weights)


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    return command.main([*arguments, *([] if '--model' in arguments else MODEL)])


@pytest.fixture(scope='module')
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a short sample bag."""
    path = tmp_path_factory.mktemp('bags') / 'sample'
    write_sample(path, frames=FRAMES)
    return path


@pytest.fixture(scope='module')
def done(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of the sample bag, with an output bag beside them."""
    out = tmp_path_factory.mktemp('results')
    assert main([
        str(bag), '--budgets', '1.0,0.5', '--budget', '0.5', '--out', str(out / 'out'),
        '--record', str(out / 'record')]) == 0
    return out


def frames_of(path: Path) -> list[RecordedFrame]:
    """Return the frames of a sample bag."""
    opened = Bag(path)
    frames = RecordedFrames(TOPIC, intrinsics_of(opened, TOPIC))
    return [frames.read(message) for message in opened.messages((TOPIC,))]


def in_a_stream(engine: Engine, frames: list[RecordedFrame], settings: Settings) -> list[Any]:
    """Return the results of frames that follow one another."""
    stream, results = Stream(), []
    for frame in frames:
        stream.arrived(frame.stamp / 1e9, frame.header.frame_id)
        results.append(engine.infer(frame.image, settings, frame.camera, stream))
    return results


# Measures


def test_sample_is_exact_and_then_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its size it has all values; after that a fair choice of them."""
    monkeypatch.setattr(measures, 'SAMPLE', 500)
    sample = Sample()
    values = [random.Random(1).gauss(10, 2) for _ in range(500)]
    for value in values:
        sample.add(value)
    assert sample.percentile(95) == pytest.approx(np.percentile(values, 95))
    for number in range(20000):
        sample.add(number / 20000)
    assert len(sample.values) == 500
    assert sample.count == 20500
    assert sample.percentile(50) == pytest.approx(0.51, abs=0.08)
    assert Sample().percentile(50) is None


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 60)), max_size=40))
def test_slot_drops_what_a_simulation_step_by_step_drops(
        steps: list[tuple[int, int]]) -> None:
    """Arrivals in ticks against a worker that takes so many ticks for each frame."""
    times = np.cumsum([gap for gap, _ in steps]).tolist()
    slot = LatestOnly()
    for time, (_, work) in zip(times, steps):
        slot.arrive(time, work)

    waiting: int | None = None
    busy = dropped = 0
    for tick in range((times[-1] if times else 0) + 1):
        busy = max(0, busy - 1)
        if not busy and waiting is not None:
            busy, waiting = waiting, None
        for time, (_, work) in zip(times, steps):
            if time != tick:
                continue
            if not busy:
                busy = work
            else:
                dropped += waiting is not None
                waiting = work
    assert slot.dropped == dropped


def test_difference_agrees_with_the_runtime(engine: Engine, bag: Path) -> None:
    """The same shares as runtime.agreement, and each task's own terms by definition."""
    images = [frame.image for frame in frames_of(bag)[:2]]
    difference = Difference({task: len(names) for task, names in engine.class_names.items()})
    pairs = []
    for image in images:
        dense, adaptive = (engine.infer(image, settings).outputs for settings in (
            Settings(tasks=engine.tasks),
            Settings(mode='adaptive', budget=0.4, tasks=engine.tasks)))
        pairs.append((adaptive, dense))
        agreed = difference.update(adaptive, dense)
        for task, value in agreed.items():
            assert value == pytest.approx(agreement(task, adaptive[task], dense[task]), abs=1e-4)
    values = difference.compute()
    one, two = (np.stack([pair[side]['semseg'] for pair in pairs]) for side in (0, 1))
    ious = [
        ((one == c) & (two == c)).sum() / ((one == c) | (two == c)).sum()
        for c in np.union1d(one, two)]
    assert values['semseg']['miou'] == pytest.approx(np.mean(ious))
    one, two = (np.stack([pair[side]['edges'] for pair in pairs]) for side in (0, 1))
    assert values['edges']['mae'] == pytest.approx(np.abs(one - two).mean(), rel=1e-4)
    both = ((one > 0.5) & (two > 0.5)).sum()
    assert values['edges']['f'] == pytest.approx(
        2 * both / ((one > 0.5).sum() + (two > 0.5).sum()))
    one, two = (np.stack([pair[side]['normals'] for pair in pairs]) for side in (0, 1))
    assert values['normals']['mean_deg'] == pytest.approx(
        np.degrees(np.arccos((one * two).sum(-1).clip(-1, 1))).mean(), rel=1e-3)
    one, two = (np.stack([pair[side]['depth'] for pair in pairs]) for side in (0, 1))
    assert values['depth']['mae_m'] == pytest.approx(np.abs(one - two).mean(), rel=1e-4)
    assert values['depth']['abs_rel'] == pytest.approx(np.abs(one / two - 1).mean(), rel=1e-4)
    one, two = (np.float32([[[0, 0, -1]] * 4] * 4) for _ in range(2))
    one[0], two[:2] = np.nan, np.nan
    agreed = Difference({}).update({'normals': one}, {'normals': two})
    assert agreed == {'normals': agreement('normals', one, two)} == {'normals': 0.75}
    same = Difference({'semseg': 18})
    assert same.update({'semseg': pairs[0][0]['semseg']}, {'semseg': pairs[0][0]['semseg']}) == {
        'semseg': 1.0}


@pytest.mark.parametrize('count', [1, 3, measures.BINS, 5 * measures.BINS + 7])
def test_series_keeps_the_mean_and_the_order(count: int) -> None:
    """However long, in a fixed number of stretches."""
    series = Series(2)
    for number in range(count):
        series.add((number, 1.0))
    means = series.means()
    assert len(means) <= measures.BINS
    assert np.all(np.diff(means[:, 0]) > 0)
    assert means[:, 1].tolist() == [1.0] * len(means)
    assert means[0, 0] == (min(series.width, count) - 1) / 2


@given(st.lists(st.floats(0, 1), max_size=60))
def test_worst_are_the_worst(values: list[float]) -> None:
    """The least agreement first, the earlier first of equal ones."""
    worst = Worst()
    for index, value in enumerate(values):
        worst.add(index, value)
    expected = sorted(enumerate(values), key=lambda each: (each[1], each[0]))
    assert worst.frames() == expected[:measures.WORST]


def test_scenes_begin_where_the_colours_change() -> None:
    """A cut begins one, a flash of two frames does not."""
    scenes = Scenes()
    dark, bright = (np.full((60, 80, 3), value, np.uint8) for value in (20, 200))
    numbers = [scenes.add(image) for image in
               [dark] * 5 + [bright] * 2 + [dark] * 3 + [bright] * 5]
    assert numbers == [0] * 12 + [1] * 3


# Energy


def test_energy_of_a_machine_that_does_not_tell_is_null(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the meter says what to install, and reads nothing."""
    monkeypatch.setitem(__import__('sys').modules, 'zeus.device', None)
    meter = energy.Meter('cpu')
    assert not meter.available
    assert 'energy' in meter.source
    assert math.isnan(meter.read())


def test_energy_is_the_sum_of_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, one with memory counters; millijoules become joules."""
    class Cpus:
        def __len__(self) -> int:
            return 2

        def get_total_energy_consumption(self, index: int) -> SimpleNamespace:
            return SimpleNamespace(cpu_mj=1000.0 * (index + 1), dram_mj=[500.0, None][index])

    def absent() -> None:
        raise RuntimeError('not a Jetson')

    monkeypatch.setitem(__import__('sys').modules, 'zeus', SimpleNamespace())
    monkeypatch.setitem(__import__('sys').modules, 'zeus.device', SimpleNamespace(
        get_cpus=Cpus, get_gpus=absent, get_soc=absent))
    meter = energy.Meter('cpu')
    assert (meter.source, meter.read()) == ('RAPL', 3.5)


# One recording


def test_results_have_the_keys_that_scripts_read(done: Path, bag: Path, engine: Engine) -> None:
    """And the figures are those of the engine on the same frames."""
    results = json.loads((done / 'out' / 'results.json').read_text())
    assert (results['bag'], results['topic'], results['frames']) == (str(bag), TOPIC, FRAMES)
    rows = results['rows']
    assert [(row['mode'], row['budget']) for row in rows] == [
        ('static', 1.0), ('shadow', 0.5), ('adaptive', 1.0), ('adaptive', 0.5)]
    for row in rows:
        assert {'mode', 'budget', 'achieved', 'p50_ms', 'p95_ms', 'p99_ms', 'dropped',
                'agreement', 'energy_j'} <= row.keys()
        assert 0 < row['p50_ms'] <= row['p95_ms'] <= row['p99_ms']
    settings = Settings(mode='adaptive', budget=0.5, tasks=engine.tasks)
    stats = [result.stats for result in in_a_stream(
        engine, frames_of(bag), replace(settings, compare=True))]
    assert rows[3]['achieved'] == pytest.approx(np.mean([s.budget_achieved for s in stats]))
    assert rows[3]['gmacs'] == pytest.approx(np.mean([s.gmacs for s in stats]))
    for task in engine.tasks:
        assert rows[3]['agreement'][task] == pytest.approx(
            np.mean([s.task_agreement[task] for s in stats]), abs=1e-4)
        assert rows[0]['agreement'][task] == rows[1]['agreement'][task] == 1.0
        assert 0 <= rows[3]['stability'][task] <= 1
    assert rows[3]['worst'][0]['agreement'] == pytest.approx(
        min(s.agreement for s in stats), abs=1e-4)
    assert rows[0]['difference'] is None
    scene = results['scenes'][0]
    assert (scene['first'], scene['frames']) == (0, FRAMES)
    assert scene['rows'][3]['task_token_fraction']['depth'] == pytest.approx(np.mean([
        s.task_token_fraction[s.tasks.index('depth')] for s in stats]))
    assert results['problems'] == []
    assert results['skipped'] == {}
    with (done / 'out' / 'frames.csv').open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4 * FRAMES
    assert float(table[3]['agreement']) == pytest.approx(stats[0].agreement, abs=1e-4)
    assert rows[3]['reused'] == np.mean([s.reused for s in stats])
    assert rows[3]['empty'] == np.mean([bool(s.tasks_empty) for s in stats])
    assert [each['empty'] for each in table[3::4]] == [' '.join(s.tasks_empty) for s in stats]
    assert [int(each['reused']) for each in table[3::4]] == [s.reused for s in stats]


@pytest.mark.parametrize('reuse', [True, False])
def test_a_recording_that_stands_still_is_computed_once(
        bag: Path, engine: Engine, reuse: bool) -> None:
    """And the worst frames are shown with the results of the one that was computed."""
    plan = Plan(TOPIC, ('depth',), (0.5,), 0.5, modes=('adaptive',), reuse=reuse)
    evaluation = Evaluation(Bag(bag), engine, plan)
    first = frames_of(bag)[0]
    for number in range(5):
        evaluation._frame(first._replace(
            number=number, stamp=first.stamp + number * 10**8), number / 10, {}, None)
    row, series = evaluation.figures()['rows'][1], evaluation.figures()['series']['rows'][1]
    assert series['reused'] == ([0, 1, 1, 1, 1] if reuse else [0] * 5)
    assert row['achieved'] == pytest.approx(np.mean(series['achieved']))
    if reuse:
        assert (row['reused'], row['computed']) == (0.8, pytest.approx(series['achieved'][0]))
        assert row['memory_saved'] == pytest.approx(0.8 * row['computed'])
        assert {each['computed'] for each in row['worst']} == {0}
        assert row['p50_ms'] < evaluation.figures()['rows'][0]['p50_ms'] / 2
    else:
        assert (row['reused'], row['memory_saved']) == (0.0, 0.0)
        assert {each['computed'] for each in row['worst']} == set(range(5))


def test_report_needs_nothing_else(done: Path) -> None:
    """No link leads out of the file; plots and pictures are inside, and it has a dark side."""
    text = (done / 'out' / 'report.html').read_text()
    outside = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?!data:|#)([^"\')\s>]+)', text)
    assert outside == []
    assert '<script' not in text
    assert text.count('<svg') == 3
    assert text.count('data:image/jpeg;base64,') == FRAMES * (1 + 2 * 6)
    assert 'prefers-color-scheme: dark' in text
    assert '@media print' in text
    assert not re.search('#01020[3-8]', text)
    recommendation = json.loads((done / 'out' / 'results.json').read_text())['recommendation']
    assert recommendation['text'] in text


def row(
        mode: str, budget: float, share: float, time: float, low: float | None = 0.1,
) -> dict[str, Any]:
    """Return what a recommendation looks at."""
    return {'mode': mode, 'budget': budget, 'agreement': {'depth': share}, 'p50_ms': time,
            'mean_ms': time, 'gmacs': time, 'time_saved_low': low, 'least_agreement': share}


def test_recommendation_is_the_fastest_that_keeps_the_agreement() -> None:
    """And it says where agreement drops; without such a budget it is the dense network."""
    rows = [row('static', 1.0, 1.0, 10.0), row('adaptive', 0.8, 0.99, 8.0),
            row('adaptive', 0.6, 0.96, 6.0), row('adaptive', 0.3, 0.5, 3.0)]
    values = [1.0] * 40
    values[17:20] = [0.3, 0.2, 0.3]
    figures = {
        'rows': rows, 'keep': 0.95, 'every': 1, 'series': {
            'frame': list(range(40)), 'width': 1, 'rows': [
                {'mode': each['mode'], 'budget': each['budget'], 'agreement': values}
                for each in rows]}}
    found = recommend(figures)
    assert (found['mode'], found['budget'], found['frames']) == ('adaptive', 0.6, [[17, 19]])
    assert '96.0% agreement' in found['text']
    assert 'takes 40% less time' in found['text']
    assert 'the drop is in frames 17–19' in found['text']
    figures['keep'] = 0.995
    assert recommend(figures)['mode'] == 'static'
    figures['keep'] = 0.95
    for each, low in ((rows[1], -0.2), (rows[2], None)):
        each['p50_ms'], each['time_saved_low'] = 11.0, low
    assert recommend(figures)['budget'] is None


@pytest.mark.parametrize('saved, low, macs, words', [
    (0.01, 0.004, -0.01, 'takes 1% less time a frame and 1% more operations'),
    (0.30, -0.01, 0.2, 'takes 30% less time a frame and 20% fewer operations'),
    (0.30, None, 0.2, 'takes 30% less time a frame and 20% fewer operations'),
    (-0.04, -0.1, 0.001, 'takes 4% more time a frame and as many operations'),
    (0.002, 0.001, 0.0, 'takes as much time a frame and as many operations')])
def test_a_saving_within_the_noise_is_none(
        saved: float, low: float | None, macs: float, words: str) -> None:
    """No recommendation rests on it, and what is more is not called less."""
    rows = [row('static', 1.0, 1.0, 10.0), row('adaptive', 1.0, 1.0, 10 * (1 - saved), low)]
    rows[1]['gmacs'] = 10 * (1 - macs)
    figures = {'rows': rows, 'keep': 0.95, 'every': 1, 'series': {
        'frame': [0], 'width': 1,
        'rows': [{'mode': 'adaptive', 'budget': 1.0, 'agreement': [1.0]}]}}
    found = recommend(figures)
    assert (found['mode'], found['budget']) == ('static', None)
    assert 'faster by more than the noise of this measurement and 2%' in found['text']
    assert words in found['text']
    together = recommend_over_all(rows, 0.95)
    assert (together['mode'], together['budget']) == ('static', None)
    rows[1]['time_saved_low'] = 0.03
    rows[1]['p50_ms'] = rows[1]['mean_ms'] = 9.0
    assert recommend(figures)['budget'] == recommend_over_all(rows, 0.95)['budget'] == 1.0


def test_the_noise_of_a_saving_is_that_of_its_frames() -> None:
    """Where nothing is saved a saving is seen in one of twenty recordings at most."""
    rng = np.random.default_rng(0)
    wrong = sum(saved_low(rng.normal(0.0, 1.0, 90), 10.0) > 0 for _ in range(2000))
    assert 0.01 * 2000 < wrong < 0.05 * 2000
    # Outliers, such as a frame during which something else ran, do not hide what is there.
    times = np.full(90, 0.5) + rng.normal(0.0, 0.1, 90)
    times[::10] = -40.0
    assert 0.04 < saved_low(times, 10.0) < 0.05
    assert saved_low(np.full(4, 3.0), 10.0) is None
    assert saved_low(np.full(5, 3.0), 10.0) == pytest.approx(0.3)
    assert saved_low(np.empty(0), None) is None


def test_output_bag_is_what_the_node_publishes(done: Path, bag: Path, engine: Engine) -> None:
    """Topics, types, stamps and bytes; any reader of bags knows all types from the bag itself."""
    settings = Settings(
        mode='adaptive', budget=0.5, tasks=engine.tasks, confidence=True, gating_map=True)
    results = in_a_stream(engine, frames_of(bag), settings)
    found: dict[str, list[Any]] = {}
    with AnyReader([done / 'record'], default_typestore=typestore()) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
        for connection, time, data in reader.messages():
            found.setdefault(connection.topic, []).append(
                (time, reader.deserialize(data, connection.msgtype)))
    images = {f'/adamtl/{name}' for name in (
        *engine.tasks, 'semseg/confidence', 'gating_map', 'overlay')}
    assert types == dict.fromkeys(images, 'sensor_msgs/msg/Image') | {
        '/adamtl/camera_info': 'sensor_msgs/msg/CameraInfo',
        '/adamtl/gating_stats': 'adamtl_ros/msg/GatingStats',
        '/adamtl/semseg/label_info': 'vision_msgs/msg/LabelInfo',
        '/adamtl/human_parts/label_info': 'vision_msgs/msg/LabelInfo'}
    stamps = [frame.stamp for frame in frames_of(bag)]
    for topic, messages in found.items():
        if 'label_info' not in topic:
            assert [
                m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in messages] == stamps
            assert [time for time, _ in messages] == stamps
            assert messages[0][1].header.frame_id == 'camera_optical_frame'
    for index, result in enumerate(results):
        for name, values, encoding in published_images(result):
            message = found[f'/adamtl/{name}'][index][1]
            assert message.encoding == encoding
            assert message.data.tobytes() == np.ascontiguousarray(values).tobytes()
    stats = found['/adamtl/gating_stats'][2][1]
    assert (stats.mode, stats.frames_processed) == ('adaptive', 3)
    assert stats.budget_achieved == pytest.approx(results[2].stats.budget_achieved)
    for each, task in zip(stats.task_stats, stats_fields(results[2].stats)['task_stats']):
        assert (each.name, each.empty) == (task['name'], task['empty'])
        assert each.token_fraction == pytest.approx(task['token_fraction'])
    assert [each.name for each in stats.task_stats] == list(engine.tasks)
    assert stats.block_active.tolist() == list(results[2].stats.block_active)
    assert (stats.input_width, stats.input_height) == results[2].stats.size
    assert stats.warped == results[2].stats.warped
    assert stats.guard == 'off' and stats.age_ms == stats.latency_ms > 0
    assert found['/adamtl/semseg/label_info'][0][1].class_map[4].class_name == 'person'


@pytest.mark.slow
@pytest.mark.parametrize('node', ['left/glasses', '/left/glasses'])
def test_output_bag_of_a_node_in_a_namespace(node: str, bag: Path, tmp_path: Path) -> None:
    """Its topics are those of the node, with one slash before them."""
    assert main([
        str(bag), '--budgets', '0.5', '--modes', 'adaptive', '--tasks', 'depth', '--max-frames',
        '1', '--node', node, '--record', str(tmp_path / 'record'), '--out',
        str(tmp_path / 'out')]) == 0
    assert set(Bag(tmp_path / 'record').topics) == {f'/left/glasses/{name}' for name in (
        'depth', 'overlay', 'gating_map', 'gating_stats', 'camera_info')}


def test_what_is_odd_and_costs_nothing_is_told(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A renamed file: all frames are evaluated, so the exit code is 0."""
    write_sample(tmp_path / 'bag', frames=2)
    (tmp_path / 'bag' / 'bag.mcap').rename(tmp_path / 'bag' / 'walk.mcap')
    assert main([str(tmp_path / 'bag'), *QUICK, '--out', str(tmp_path / 'out')]) == 0
    assert 'walk.mcap is read instead' in capsys.readouterr().err
    results = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert results['frames'] == 2
    assert results['problems'] == []
    assert 'walk.mcap is read instead' in results['notes'][0]


@pytest.mark.slow
def test_a_topic_of_depth_names_the_camera(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for by name; left alone it is the camera that is evaluated."""
    write_sample(tmp_path / 'sample', frames=2)
    write_sample(tmp_path / 'labels', frames=2)
    assert main([str(tmp_path / 'sample'), *QUICK, '--record', str(tmp_path / 'depth'), '--out',
                 str(tmp_path / 'out')]) == 0
    path = join(tmp_path / 'bag', [tmp_path / 'sample', tmp_path / 'depth'])
    arguments = [str(path), *QUICK, '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--topic', '/adamtl/depth']) == 2
    said = capsys.readouterr().err
    assert 'no frame of /adamtl/depth could be used' in said
    assert 'with --topic: ' in said
    assert TOPIC in said.rpartition('with --topic: ')[2]


def test_every_and_max_frames(bag: Path, engine: Engine) -> None:
    """Every other frame, two of them; those left out arrive at the slot all the same."""
    plan = Plan(TOPIC, ('depth',), (0.5,), 0.5, modes=('adaptive',), every=2, max_frames=2)
    evaluation = Evaluation(Bag(bag), engine, plan)
    evaluation.run()
    figures = evaluation.figures()
    assert (figures['frames'], figures['messages'], figures['every']) == (2, 3, 2)
    assert figures['problems'] == []
    assert figures['series']['frame'] == [0, 2]
    assert [len(each['agreement']) for each in figures['rows']] == [1, 1]


@pytest.mark.slow
def test_cut_off_bag_is_reported_and_evaluated(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the results of what there is, and a line that says what is missing."""
    write_sample(tmp_path / 'bag', frames=8)
    file = tmp_path / 'bag' / 'bag.mcap'
    with file.open('r+b') as stream:
        stream.truncate(file.stat().st_size // 2)
    assert main([
        str(tmp_path / 'bag'), '--budgets', '0.5', '--modes', 'adaptive', '--tasks', 'depth',
        '--out', str(tmp_path / 'out')]) == 1
    assert '8 messages were recorded' in capsys.readouterr().err
    results = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert 2 <= results['frames'] < 8
    assert any('ends in the middle' in problem for problem in results['problems'])
    assert 'ends in the middle' in (tmp_path / 'out' / 'report.html').read_text()


@pytest.mark.parametrize('arguments, message', [
    (['nowhere'], 'nowhere'),
    ([], 'name a recording'),
    (['BAG', '--budgets', '0.5,2'], 'budget 2.0'),
    (['BAG', '--budgets', 'half'], "'half' is not a number"),
    (['BAG', '--modes', 'fast'], "'fast' is unknown"),
    (['BAG', '--topic', '/none'], 'no pictures on the topic /none; it has /camera/image_raw'),
    (['BAG', '--tasks', 'taste'], "unknown task 'taste'"),
    (['BAG', '--every', '0'], '--every 0'),
    (['BAG', '--keep', '1.5'], '--keep 1.5'),
    (['BAG', '--truth', 'depth'], 'TASK=TOPIC'),
    (['BAG', '--truth', 'depth=/none'], 'no topic /none'),
    (['BAG', '--labels', 'nowhere'], 'holds no labels'),
    (['BAG', '--model', 'nothing'], 'nothing'),
    (['BAG', '--record', 'BAG'], 'exists already'),
    (['BAG', '--node', ''], "--node '': is no name of a node"),
    (['BAG', '--node', 'bad name'], "--node 'bad name': is no name of a node"),
    (['BAG', '--node', '//left/adamtl'], "--node '//left/adamtl': is no name"),
    (['BAG', '--node', 'left/2nd'], "--node 'left/2nd': is no name of a node"),
    (['--sample', 'NEW', '--size', 'big'], '--size big'),
    (['--sample', 'BAG'], 'exists already'),
    (['BAG', 'BAG/..', '--live'], '--live plays one'),
])
def test_bad_input_is_named(
        arguments: list[str], message: str, bag: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line."""
    write_sample(bag.parent / 'other', frames=1) if not (bag.parent / 'other').exists() else None
    given = [each.replace('BAG', str(bag)).replace('NEW', str(tmp_path / 'new'))
             for each in arguments]
    assert main([*given, '--out', str(tmp_path / 'out')]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert 'Traceback' not in errors


# Labels


@pytest.mark.slow
@pytest.mark.parametrize('where', ['topics', 'folder', 'order'])
def test_labels_that_are_the_dense_results_give_perfect_scores(
        where: str, tmp_path: Path, engine: Engine) -> None:
    """From topics of the bag, and from files named by stamp or counted."""
    write_sample(tmp_path / 'bag', frames=3)
    settings = Settings(tasks=('semseg', 'depth'))
    frames = frames_of(tmp_path / 'bag')
    arguments = [str(tmp_path / 'bag'), '--budgets', '0.5', '--modes', 'adaptive', '--tasks',
                 'semseg,depth', '--out', str(tmp_path / 'out')]
    if where == 'topics':
        assert main([
            *arguments, '--record', str(tmp_path / 'labels'), '--mode', 'static']) == 0
        joined = join(tmp_path / 'joined', [tmp_path / 'labels', tmp_path / 'bag'])
        arguments[0] = str(joined)
        arguments += ['--topic', TOPIC, '--truth', 'semseg=/adamtl/semseg', '--truth',
                      'depth=/adamtl/depth']
    else:
        for number, frame in enumerate(frames):
            outputs = engine.infer(frame.image, settings, frame.camera).outputs
            name = f'{frame.stamp if where == "folder" else number}.png'
            for task, values in outputs.items():
                values = values if task == 'semseg' else (values * 1000).astype(np.uint16)
                (tmp_path / 'truth' / task).mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(tmp_path / 'truth' / task / name), values)
        arguments += ['--labels', str(tmp_path / 'truth')]
    assert main(arguments) == 0
    rows = json.loads((tmp_path / 'out' / 'results.json').read_text())['rows']
    assert rows[0]['labelled_frames'] == {'semseg': 3, 'depth': 3}
    assert rows[0]['accuracy']['semseg']['miou'] == pytest.approx(1.0)
    assert rows[0]['accuracy']['depth']['rmse_m'] < 0.01
    assert rows[1]['accuracy']['depth']['rmse_m'] > 0.01


def join(path: Path, bags: list[Path]) -> Path:
    """Write the messages of several bags into one, those of the last bag first."""
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer
    messages = []
    for number, each in enumerate(bags):
        with Reader(each) as reader:
            messages += [
                (time, -number, c.topic, c.msgtype, data) for c, time, data in reader.messages()]
    store = typestore()
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections: dict[str, Any] = {}
        for time, _, topic, kind, data in sorted(messages, key=lambda each: each[:2]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time, data)
    return path


def test_labels_are_brought_to_one_form() -> None:
    """Metres, unit vectors and probabilities as the data sets store them; padding is skipped."""
    size = (4, 2)
    metres = np.array([[0.5, np.nan, 0, 2]] * 2, np.float32)
    assert label_of('depth', metres, size).tolist() == [[500, 0, 0, 2000]] * 2
    normals = np.zeros((2, 4, 3), np.float32)
    normals[0, 0] = (0, 0, -1)
    assert label_of('normals', normals, size)[0, 0].tolist() == [128, 128, 0]
    assert not label_of('normals', normals, size)[1].any()
    assert label_of('edges', np.full((2, 4), 0.9, np.float32), size).tolist() == [[1] * 4] * 2
    assert label_of('semseg', np.full((4, 8), 7, np.uint8), size).shape == (2, 4)
    with pytest.raises(ValueError, match='depth cannot have'):
        label_of('depth', normals, size)
    padded = SimpleNamespace(
        encoding='16UC1', width=2, height=2, step=6, is_bigendian=1,
        data=np.array([0, 1, 0, 2, 9, 9, 1, 0, 2, 0, 9, 9], np.uint8))
    assert array_of(padded).tolist() == [[1, 2], [256, 512]]
    with pytest.raises(ValueError, match='bayer'):
        array_of(SimpleNamespace(encoding='bayer_rggb8'))


def full(value: float, kind: type, *shape: int) -> np.ndarray:
    """Return a label of one value."""
    return np.full((2, 4, *shape), value, kind)


@pytest.mark.parametrize('task, values, words', [
    ('semseg', full(300, np.uint16), 'semseg has the value 300: the classes are 0 to 17, and 255'),
    ('semseg', full(18, np.uint8), 'semseg has the value 18: the classes are 0 to 17'),
    ('semseg', full(3, np.float32), 'semseg cannot be of float32: give class ids'),
    ('saliency', full(300, np.uint16), 'saliency cannot have 16 bits'),
    ('saliency', full(200, np.float32), 'values from 200 to 200: they must lie within 0 and 1'),
    ('edges', full(np.inf, np.float32), 'edges has values from inf'),
    ('depth', full(200, np.uint8), 'depth cannot have 8 bits: give 16 bits of millimetres'),
    ('depth', full(80, np.float32), 'depth has metres from 80 to 80: .*0 and 65.535'),
    ('depth', full(-1, np.float32), 'depth has metres from -1'),
    ('normals', full(200, np.float32, 3), 'normals has lengths from 346'),
    ('normals', full(0.1, np.float32, 3), 'normals has lengths from 0.17'),
    ('normals', full(200, np.uint16, 3), 'normals cannot have 16 bits')])
def test_labels_out_of_range_are_refused_by_name(
        task: str, values: np.ndarray, words: str) -> None:
    """None is wrapped, cut or rescaled in silence."""
    with pytest.raises(ValueError, match=words):
        label_of(task, values, (4, 2), 18)


def test_labels_at_the_ends_of_their_range() -> None:
    """What fits is kept to the last value."""
    assert label_of('depth', full(65.535, np.float32), (4, 2)).max() == 65535
    assert label_of('depth', full(65535, np.uint16), (4, 2)).min() == 65535
    assert label_of('semseg', full(65535, np.uint16), (4, 2), 18).min() == 255
    assert label_of('semseg', full(17, np.uint16), (4, 2), 18).dtype == np.uint8
    # Of so many classes that 8 bits do not tell them, 255 is one.
    for value, kind in ((255, np.uint8), (299, np.uint16), (65535, np.uint16)):
        wide = label_of('semseg', full(value, kind), (4, 2), 300)
        assert wide.dtype == np.uint16 and wide.min() == value
    assert label_of('saliency', full(1, np.float32), (4, 2)).min() == 255
    nearly = np.zeros((2, 4, 3), np.float32)
    nearly[..., 0] = 1.003
    assert label_of('normals', nearly, (4, 2))[0, 0].tolist() == [255, 128, 128]


@pytest.mark.parametrize('task, values, words', [
    ('depth', full(9, np.uint8), '0.png has 8 bits a sample: expected 16'),
    ('semseg', full(9, np.uint16), '0.png has 16 bits a sample: expected 8'),
    ('normals', full(9, np.uint16, 3), '0.png has 16 bits a sample: expected 8')])
def test_label_files_of_other_bits_are_named(
        task: str, values: np.ndarray, words: str, tmp_path: Path) -> None:
    """They would be scaled or cut by who reads them."""
    (tmp_path / task).mkdir()
    assert cv2.imwrite(str(tmp_path / task / '0.png'), values)
    with pytest.raises(ValueError, match=words):
        FolderLabels(tmp_path).take(0, 0)


# Live, without a graph


def test_fixed_sets_stand_beside_the_policy(bag: Path, engine: Engine) -> None:
    plan = Plan(TOPIC, ('depth',), (0.4,), 0.5, modes=('adaptive', 'fixed'))
    evaluation = Evaluation(Bag(bag), engine, plan)
    evaluation.run()
    static, adaptive, fixed = evaluation.figures()['rows']
    assert (adaptive['mode'], fixed['mode'], fixed['budget']) == ('adaptive', 'fixed', 0.4)
    assert fixed['achieved'] <= 0.4 and fixed['reused'] == fixed['warped'] == 0.0
    # It is compared with the dense network, as what adaptive publishes is.
    assert 0.0 < fixed['agreement']['depth'] < 1.0 == static['agreement']['depth']
    assert fixed['time_saved_low'] is not None


def test_what_streams_save_is_told_by_their_mean() -> None:
    """Half of the frames take all the time and a little more, the others next to none."""
    dense = np.full(200, 10.0)
    stream = np.tile([10.5, 1.0], 100)
    assert 0.3 < saved_low(dense - stream, 10.0) < 0.45


def test_live_comparison_sees_a_single_changed_bit(engine: Engine, bag: Path) -> None:
    """The same results are identical; one flipped bit of one topic is a difference."""
    # Of the second nothing was seen to change, and the node had spent before.  Then the camera
    # turns: results are warped, but for those of key frames.
    first = frames_of(bag)[0]
    frames = [first] + [first._replace(
        number=number, stamp=first.stamp + number * 10**7,
        image=np.roll(first.image, 3 * (number - 1), 1)) for number in range(1, 7)]
    warped = []
    stream = Stream()
    stream.spend(1.0, Settings(budget=0.6))
    live = Live(1.0)
    live.parameters = {
        'budget': 0.6, 'output_size': 'network', 'skip_empty': True} | {
        f'tasks.{task}.weight': 1.0 for task in TASKS}
    settings = Settings(
        mode='adaptive', budget=0.6, tasks=engine.tasks, weights=dict.fromkeys(engine.tasks, 1.0))
    for frame in frames:
        live.sent[frame.stamp] = 0
        result = engine.infer(frame.image, settings, frame.camera, stream)
        assert result.stats.reused == (frame is frames[1])
        warped.append(result.stats.warped)
        live.message(frame.stamp, 'gating_stats', SimpleNamespace(
            mode='adaptive', budget_requested=float(np.float32(0.6)),
            budget_cap=result.stats.budget_cap, price=result.stats.price,
            reused=result.stats.reused, warped=result.stats.warped, fused=result.stats.fused,
            latency_ms=1.0, task_stats=[
                SimpleNamespace(**each) for each in stats_fields(result.stats)['task_stats']]))
        for name, values, encoding in published_images(result):
            data = bytearray(np.ascontiguousarray(values).tobytes())
            if frame is frames[1] and name == 'depth':
                data[5] ^= 1
            live.message(
                frame.stamp, name, SimpleNamespace(data=data, encoding=encoding))
        live.frame(frame, engine)
    figures = live.figures()
    assert any(warped) and (figures['identical'], figures['different']) == (6, 1)
    assert figures['differing'] == [{'frame': 1, 'topics': ['depth']}]
    assert digest(b'ab', 'mono8') != digest(b'ab', 'mono16')


def test_memory_of_what_the_node_published_is_small() -> None:
    """Some 0.5 kB a frame, to process it once more: an hour at 30 Hz has 108,000."""
    live = Live(1.0)
    image = SimpleNamespace(data=b'0123', encoding='mono8')

    def record(stamps: range) -> None:
        for stamp in stamps:
            live.sent[stamp] = 5
            for task in TASKS:
                live.message(stamp, task, image)
            live.message(stamp, 'gating_stats', SimpleNamespace(
                mode=''.join(('adap', 'tive')), budget_requested=0.1 + stamp,
                budget_cap=0.2 + stamp, price=0.3 + stamp, reused=False, warped=False,
                fused=False,
                latency_ms=1.0, task_stats=[SimpleNamespace(name=task) for task in TASKS]))
            live.completed(stamp, 7)

    record(range(1, 1000))
    tracemalloc.start()
    record(range(1000, 4000))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(live.stats) == len(live.digests) == live.delivery.count == 3999
    assert kept / 3000 < 900


# Many recordings


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Return a folder with two recordings and something that is none."""
    write_sample(tmp_path / 'bags' / 'a', frames=2)
    write_sample(tmp_path / 'bags' / 'deep' / 'a', frames=3, storage='sqlite3', compressed=True)
    (tmp_path / 'bags' / 'broken').mkdir()
    (tmp_path / 'bags' / 'broken' / 'x.mcap').write_text('nothing')
    return tmp_path / 'bags'


QUICK = ['--budgets', '0.5', '--modes', 'adaptive', '--tasks', 'depth']


@pytest.mark.slow
def test_many_recordings_resume(several: Path, tmp_path: Path) -> None:
    """One summary; what is finished is not done again, unless asked otherwise."""
    out = tmp_path / 'out'
    arguments = [str(several), *QUICK, '--jobs', '1', '--out', str(out)]
    assert main(arguments) == 1
    results = json.loads((out / 'results.json').read_text())
    assert results['frames'] == 5
    by_name = {bag['name']: bag for bag in results['bags']}
    assert {name: bag.get('frames') for name, bag in by_name.items()} == {
        'a': 2, 'a_2': 3, 'broken': None}
    assert 'x.mcap' in by_name['broken']['error']
    one, two = (json.loads((out / name / 'results.json').read_text()) for name in ('a', 'a_2'))
    assert results['rows'][1]['agreement']['depth'] == pytest.approx(
        (2 * one['rows'][1]['agreement']['depth'] + 3 * two['rows'][1]['agreement']['depth']) / 5)
    assert 'href="a_2/report.html"' in (out / 'report.html').read_text()

    (out / 'a' / 'results.json').unlink()
    before = (out / 'a_2' / 'results.json').stat().st_mtime_ns
    (out / 'a' / 'report.html').unlink()
    assert main(arguments) == 1
    assert (out / 'a' / 'report.html').exists()
    assert (out / 'a_2' / 'results.json').stat().st_mtime_ns == before
    for changed in (['--keep', '0.5'], ['--hfov', '60'], ['--no-reuse']):
        assert main([*arguments, *changed]) == 1
        after = (out / 'a_2' / 'results.json').stat().st_mtime_ns
        assert after > before
        before = after


@pytest.mark.slow
def test_loose_files_do_not_hide_or_stop_the_others(tmp_path: Path) -> None:
    """Each file is a recording of its own; those in folders beside it are evaluated too."""
    bags = tmp_path / 'bags'
    for name in ('one', 'two'):
        write_sample(tmp_path / name, frames=2)
        bags.mkdir(exist_ok=True)
        (tmp_path / name / f'{name}.mcap').rename(bags / f'{name}.mcap')
    write_sample(bags / 'folder', frames=3, storage='sqlite3')
    (bags / 'broken.db3').write_bytes(b'SQLite format 3\0' + bytes(5000))
    (bags / 'old.bag').write_bytes(b'#ROSBAG V2.0\n' + bytes(100))
    (bags / 'notes.txt').write_text('x')
    assert [path.name for path in find_bags([bags])] == [
        'broken.db3', 'old.bag', 'one.mcap', 'two.mcap', 'folder']
    out = tmp_path / 'out'
    assert main([str(bags), *QUICK, '--jobs', '1', '--out', str(out)]) == 1
    found = {bag['name']: bag for bag in json.loads((out / 'results.json').read_text())['bags']}
    assert {name: bag.get('frames') for name, bag in found.items()} == {
        'broken': None, 'old': None, 'one': 2, 'two': 2, 'folder': 3}
    assert 'rosbags-convert' in found['old']['error']
    assert 'broken.db3' in found['broken']['error']
    assert all(bag['problems'] == [] and bag['skipped'] == 0
               for bag in found.values() if 'error' not in bag)


@pytest.mark.slow
def test_folders_that_cannot_be_read_are_named(
        several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stop no other recording."""
    listed = Path.iterdir

    def iterdir(folder: Path) -> Any:
        if folder.name == 'broken':
            raise PermissionError(13, 'Permission denied', str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, 'iterdir', iterdir)
    assert main([str(several), *QUICK, '--jobs', '1', '--out', str(tmp_path / 'out')]) == 1
    bags = json.loads((tmp_path / 'out' / 'results.json').read_text())['bags']
    assert {bag['name']: bag.get('frames') for bag in bags} == {'a': 2, 'broken': None, 'a_2': 3}
    assert 'Permission denied' in next(bag['error'] for bag in bags if 'error' in bag)


def test_whatever_is_wrong_with_one_the_others_go_on(
        several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that nobody expected too."""
    def evaluate(bag: Path, *rest: Any) -> Any:
        if bag.name == 'a' and bag.parent.name == 'bags':
            raise KeyError('surprise')
        return evaluate_bag(bag, *rest)

    monkeypatch.setattr(many, 'evaluate_bag', evaluate)
    assert main([str(several), *QUICK, '--jobs', '1', '--out', str(tmp_path / 'out')]) == 1
    bags = json.loads((tmp_path / 'out' / 'results.json').read_text())['bags']
    assert {bag['name']: bag.get('frames') for bag in bags} == {
        'a': None, 'broken': None, 'a_2': 3}
    assert "KeyError: 'surprise'" in next(bag['error'] for bag in bags if bag['name'] == 'a')


def test_several_jobs_without_dask_say_what_to_install(
        several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for by number, they are an error."""
    monkeypatch.setitem(__import__('sys').modules, 'distributed', None)
    assert main([str(several), *QUICK, '--jobs', '2', '--out', str(tmp_path / 'out')]) == 2
    assert 'cluster' in capsys.readouterr().err


def test_outputs_are_tried_before_the_recording_is_read(
        bag: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be written is refused, and what is replaced is named."""
    def enough(*_: Any, **__: Any) -> None:
        raise ValueError('enough')

    monkeypatch.setattr('adamtl_ros.commands.bag.evaluate_bag', enough)
    (tmp_path / 'file').write_text('')
    for arguments, said in (
            (['--out', '/proc/x'], 'cannot be written'),
            (['--out', str(tmp_path / 'file' / 'x')], 'cannot be written'),
            (['--out', str(tmp_path), '--record', '/proc/x/y'], 'cannot be written'),
            (['--out', str(tmp_path), '--record', str(done / 'record')], 'exists already'),
            (['--out', str(tmp_path)], 'enough'),
            (['--out', str(done / 'out')], 'results.json, report.html, frames.csv: replaced')):
        assert main([str(bag), *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_the_results_of_before(
        done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error names the file."""
    path = tmp_path / 'results.json'
    write_json(path, {'earlier': 1})

    def full(path: Path, text: str, **_: Any) -> None:
        with path.open('w') as file:
            file.write(text[:3])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(OSError, match=r'No space left.*results\.json'):
        write_json(path, {'later': 2})
    assert json.loads(path.read_text()) == {'earlier': 1}
    assert list(tmp_path.iterdir()) == [path]
