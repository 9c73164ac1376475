# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Real pictures with what other networks say of them, beside rendered frames with exact labels.

A folder of `image/ID.jpg`, `person/ID.png` (how likely each pixel is of a person, 0 to 255, and
UNKNOWN where that is open) and `saliency/ID.png` (0 to 255); labels may be smaller than pictures.
"""

from pathlib import Path

import cv2
import numpy as np

from adamtl_ros.picture_files import read_picture

UNKNOWN = 128
"""Of a person's pixels, neither yes nor no."""

SIZE = 240, 320
"""Height and width of what is read: the largest part of that shape, from a place at random."""

PARTS = ('image', 'person', 'saliency')

LABELLED = 'semseg', 'human_parts', 'saliency'
"""The tasks that pictures say something about."""


class Pictures:
    """The pictures of a folder; OSError or ValueError name what is missing."""

    def __init__(self, folder: str) -> None:
        self.root = Path(folder)
        self.ids = sorted(path.stem for path in (self.root / 'image').glob('*.jpg'))
        if not self.ids:
            raise ValueError(f'pictures={folder}: there are no image/*.jpg')
        for part in PARTS[1:]:
            lacking = [
                name for name in self.ids if not (self.root / part / f'{name}.png').is_file()]
            if lacking:
                raise ValueError(
                    f'pictures={folder}: {len(lacking)} of {len(self.ids)} have no {part}, '
                    f'{part}/{lacking[0]}.png for one')

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return 'image', uint8 (*SIZE, 3), and 'person' and 'saliency', uint8 of SIZE."""
        name = self.ids[index]
        frame = {'image': read_picture(self.root / 'image' / f'{name}.jpg')}
        height, width = frame['image'].shape[:2]
        for part in PARTS[1:]:
            path = self.root / part / f'{name}.png'
            label = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if label is None:
                raise ValueError(f'{path}: not a picture that can be read')
            # What is between yes and no at a border is no mean of them.
            how = cv2.INTER_NEAREST if part == 'person' else cv2.INTER_LINEAR
            frame[part] = cv2.resize(label, (width, height), interpolation=how)
        scale = min(height / SIZE[0], width / SIZE[1])
        h, w = round(SIZE[0] * scale), round(SIZE[1] * scale)
        top, left = (int(rng.integers(room + 1)) for room in (height - h, width - w))
        return {
            part: cv2.resize(
                value[top:top + h, left:left + w], SIZE[::-1],
                interpolation=cv2.INTER_NEAREST if part == 'person' else cv2.INTER_AREA)
            for part, value in frame.items()}
