# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Measure how wrong warped results are, and how much better those are that are averaged.

    python test/flow_errors.py CORPUS/train_clips
    python test/flow_errors.py CORPUS/sequences/seq_a

Warped: beside how much of the picture shows something else.  It is what runtime.motion.RISE rests
on: the ratio of both means, over pairs of a key frame, every fourth of a clip, and those that
follow it; and beside results that do not follow the camera.  Averaged: by the share of what was
said before, which EARLIER rests on, where every frame of a clip is computed, or every third.
"""

from collections.abc import Sequence
import sys

import numpy as np

from adamtl_ros.datasets import open_dataset
from adamtl_ros.datasets.frames import Frames
from adamtl_ros.evaluation.oracle import errors
from adamtl_ros.runtime import motion as motions
from adamtl_ros.runtime.ego_motion import moved_results
from adamtl_ros.runtime.engine import Engine
from adamtl_ros.runtime.motion import Flow
from adamtl_ros.runtime.motion import RISE
from adamtl_ros.runtime.settings import Settings
from adamtl_ros.runtime.stream import Stream

SHARES = (0.3, 0.5)
"""Of what was said before."""

AGES = (1, 3)
"""Frames from one that is computed to the next."""


def main(root: str) -> None:
    """Print the ratio and the correlation."""
    engine = Engine(num_threads=1)
    data, settings = open_dataset(root, engine.tasks, ''), Settings(tasks=engine.tasks)
    shares, dense, warped, stayed = [], [], [], []
    for clip in data.clips():
        for number, index in enumerate(clip):
            age, frame = number % 4, data[index]
            outputs = engine.infer(frame['image'], settings, data.camera(index)).outputs
            if not age:
                first, flow = outputs, Flow(frame['image'])
                continue
            motion = flow.to(frame['image'], age)
            shares.append(motion.rise / RISE)
            dense.append(errors(outputs, frame))
            for found, results in (
                    (stayed, first), (warped, moved_results(first, motion, data.camera(index)))):
                found.append(errors(
                    {task: motion.warped(value) for task, value in results.items()}, frame))
    scale = np.nanmean(dense, 0)
    rises = np.nanmean((np.array(warped) - np.array(dense)) / scale, 1)
    known = np.isfinite(rises)
    share, rise = np.array(shares)[known], rises[known]
    print(f'{len(rise)} pairs: {share.mean():.3f} of the picture shows something else, errors '
          f'rise by {rise.mean():.3f}, ratio {rise.mean() / share.mean():.2f}, correlation '
          f'{np.corrcoef(share, rise)[0, 1]:.2f}')
    print('as they follow the camera, errors of warped results change: ' + _changes(
        engine.tasks, np.nanmean(warped, 0), np.nanmean(stayed, 0)))
    averaged(engine, data)


def _changes(tasks: Sequence[str], now: np.ndarray, before: np.ndarray) -> str:
    return ', '.join(
        f'{task} {change:+.1f} %' for task, change in zip(tasks, 100 * (now / before - 1)))


def averaged(engine: Engine, data: Frames) -> None:
    """Print how errors change by averaging, in percent of those of the dense network."""
    settings = Settings('adaptive', 1.0, engine.tasks)
    for age in AGES:
        found = []
        for share in (0.0, *SHARES):
            motions.EARLIER.update(dict.fromkeys(motions.EARLIER, share))
            found.append([])
            for clip in data.clips():
                stream = Stream()
                for number, index in enumerate(clip[::age]):
                    frame = data[index]
                    outputs = engine.infer(
                        frame['image'], settings, data.camera(index), stream).outputs
                    if number:
                        found[-1].append(errors(outputs, frame))
        alone, *others = (np.nanmean(each, 0) for each in found)
        for share, mean in zip(SHARES, others):
            print(f'share {share}, {age} frames apart: ' + _changes(engine.tasks, mean, alone))


if __name__ == '__main__':
    main(sys.argv[1])
