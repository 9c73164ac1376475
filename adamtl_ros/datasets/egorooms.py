# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Reader of the egocentric indoor corpus: a folder per label kind, a file per frame.

    image/ID.jpg  semseg/ID.png  human_parts/ID.png  normals/ID.png  depth/ID.png  edge/ID.png
    saliency/ID.png  meta/ID.json

The files hold labels as `frames` describes them, but for edges, which are 0 or 255.  meta/ may be
left out: then no frame knows its camera, and each stands alone.  Of a frame it gives `fx`, `fy`,
`cx`, `cy` in pixels and, of one that belongs to a clip, a `timestamp` in seconds; the ID of such a
frame ends in _NUMBER, counted from 0 within its clip.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from adamtl_ros.camera import Camera
from adamtl_ros.datasets.frames import Frames
from adamtl_ros.datasets.frames import picture_size
from adamtl_ros.datasets.frames import read_grey
from adamtl_ros.datasets.frames import read_json
from adamtl_ros.datasets.frames import read_stored
from adamtl_ros.tasks import TASKS

_FOLDERS = {'edges': 'edge'}


class EgoRooms(Frames):
    """Frames of one split: `root` is the split's own folder."""

    layout = 'egorooms'
    labelled = tuple(TASKS)
    classes = {name: task.classes for name, task in TASKS.items() if task.classes}

    def __init__(self, root: str | Path, tasks: Iterable[str] = tuple(TASKS)) -> None:
        """Find the frames; FileNotFoundError where the folder does not have the layout."""
        ids = {path.stem for path in (Path(root) / 'image').glob('*.jpg')}
        if not ids:
            raise FileNotFoundError(
                f'no frames in {root}: expected image/ID.jpg and a folder of labels per task')
        self._described = (Path(root) / 'meta').is_dir()
        # What is described and has no image is a frame that is missing.
        ids |= {path.stem for path in (Path(root) / 'meta').glob('*.json')}
        super().__init__(root, tasks, sorted(ids))

    def files(self, name: str) -> list[Path]:
        """Return the image, the label of each task, and what describes the frame."""
        paths = [self._image(name), *(self._path(name, task) for task in self.tasks)]
        return [*paths, self._meta(name)] if self._described else paths

    def _image(self, name: str) -> Path:
        return self.root / 'image' / f'{name}.jpg'

    def _meta(self, name: str) -> Path:
        return self.root / 'meta' / f'{name}.json'

    def _path(self, name: str, task: str) -> Path:
        return self.root / _FOLDERS.get(task, task) / f'{name}.png'

    def image(self, name: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB."""
        return read_stored(self._image(name))

    def label(self, name: str, task: str) -> np.ndarray:
        """Return the stored label."""
        path = self._path(name, task)
        if task == 'normals':
            return read_stored(path)
        if task == 'depth':
            return read_grey(path, 16).astype(np.uint16)
        label = read_grey(path, palette=TASKS[task].kind == 'classes')
        return (label > 127).astype(np.uint8) if task == 'edges' else label

    def camera(self, index: int) -> Camera | None:
        """Return the camera that meta/ID.json tells, None where there is no meta/."""
        if not self._described:
            return None
        name = self.ids[index]
        path, size = self._meta(name), picture_size(self._image(name))
        values = read_json(path)
        told = values.get('width', size[0]), values.get('height', size[1])
        try:
            camera = Camera(*size, *(float(values[key]) for key in ('fx', 'fy', 'cx', 'cy')))
        except KeyError as error:
            raise ValueError(
                f'{path} has no {error.args[0]}: give fx, fy, cx and cy in pixels of the image, '
                'or delete the folder meta to go without cameras') from None
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path} describes no camera: {error}') from None
        if told != size:
            raise ValueError(
                f'{path} is of {told[0]}x{told[1]} pixels, the image of {size[0]}x{size[1]}: they '
                'must be alike')
        return camera

    def clips(self) -> list[list[int]]:
        """Return the frames clip by clip."""
        clips: dict[str, dict[int, int]] = {}
        for index, name in enumerate(self.ids):
            clip, _, number = name.rpartition('_')
            if self._described and number.isdecimal() and 'timestamp' in read_json(
                    self._meta(name)):
                clips.setdefault(clip, {})[int(number)] = index
            else:
                clips[name] = {0: index}
        for clip, frames in clips.items():
            gone = sorted(set(range(max(frames))) - frames.keys())
            if gone:
                raise ValueError(
                    f'{self.root}: the clip {clip} has no frame {gone[0]}, and {len(gone) - 1} '
                    f'more of {max(frames) + 1} are missing: put them back, or delete the rest '
                    'of the clip')
        return [[frames[number] for number in sorted(frames)] for frames in clips.values()]
