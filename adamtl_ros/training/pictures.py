# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Real pictures with what other networks say of them, beside rendered frames with exact labels.

A folder of `image/ID.jpg`, `person/ID.png` (how likely each pixel is of a person, 0 to 255, and
UNKNOWN where that is open), `saliency/ID.png` (0 to 255) and, where there are any,
`semseg/ID.png` (classes, 255 where that is open); labels may be smaller than pictures.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from adamtl_ros.picture_files import read_picture
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import TASKS

UNKNOWN = 128
"""Of a person's pixels, neither yes nor no."""

SIZE = 240, 320
"""Height and width of what is read: the largest part of that shape, from a place at random."""

PARTS = ('image', 'person', 'saliency')

CLASSES = 'semseg'
"""A folder of labels that may be missing as a whole; ids are those of `tasks.TASKS`."""

LABELLED = 'semseg', 'human_parts', 'saliency'
"""The tasks that pictures say something about."""


class Pictures:
    """The pictures of a folder; OSError or ValueError name what is missing."""

    def __init__(self, folder: str) -> None:
        self.root = Path(folder)
        self.ids = sorted(path.stem for path in (self.root / 'image').glob('*.jpg'))
        if not self.ids:
            raise ValueError(f'pictures={folder}: there are no image/*.jpg')
        self.parts = PARTS[1:] + ((CLASSES,) if (self.root / CLASSES).is_dir() else ())
        for part in self.parts:
            lacking = [
                name for name in self.ids if not (self.root / part / f'{name}.png').is_file()]
            if lacking:
                raise ValueError(
                    f'pictures={folder}: {len(lacking)} of {len(self.ids)} have no {part}, '
                    f'{part}/{lacking[0]}.png for one')

    def check(self, classes: Sequence[str]) -> None:
        """Raise ValueError if there are labels of classes, and those are not the ones given."""
        if CLASSES in self.parts and tuple(classes) != TASKS[CLASSES].classes:
            raise ValueError(
                f'pictures={self.root}: {CLASSES}/ has the classes of adamtl_ros.tasks, and the '
                f'network others ({", ".join(classes[:3])}, ...): remove {self.root / CLASSES}')

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """
        Return 'image', uint8 (*SIZE, 3), and 'person' and 'saliency', uint8 of SIZE.

        And 'semseg', likewise, where the folder has it.
        """
        name = self.ids[index]
        frame = {'image': read_picture(self.root / 'image' / f'{name}.jpg')}
        height, width = frame['image'].shape[:2]
        for part in self.parts:
            path = self.root / part / f'{name}.png'
            label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if label is None:
                raise ValueError(f'{path}: not a picture that can be read')
            if part == CLASSES and (known := label[label != IGNORE]).size and (
                    known.max() >= len(TASKS[CLASSES].classes)):
                raise ValueError(
                    f'{path}: class {known.max()} of {len(TASKS[CLASSES].classes)}; {IGNORE} is '
                    'where none is known')
            # What is between yes and no at a border is no mean of them.
            how = cv2.INTER_LINEAR if part == 'saliency' else cv2.INTER_NEAREST
            frame[part] = cv2.resize(label, (width, height), interpolation=how)
        scale = min(height / SIZE[0], width / SIZE[1])
        h, w = round(SIZE[0] * scale), round(SIZE[1] * scale)
        top, left = (int(rng.integers(room + 1)) for room in (height - h, width - w))
        return {
            part: cv2.resize(
                value[top:top + h, left:left + w], SIZE[::-1],
                interpolation=cv2.INTER_NEAREST if part in ('person', CLASSES) else cv2.INTER_AREA)
            for part, value in frame.items()}
