# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Reader of the egocentric indoor corpus: a folder per label kind, a file per frame.

    image/ID.jpg  semseg/ID.png  human_parts/ID.png  normals/ID.png  depth/ID.png  edge/ID.png
    saliency/ID.png

Labels: semseg and human_parts uint8 ids (255: none); normals uint8 RGB of (n + 1) * 127.5, zero:
none; depth uint16 millimetres, 0: none; edge 0 or 255; saliency 0 to 255.
"""

from pathlib import Path

import cv2
import numpy as np

_FOLDERS = {'edges': 'edge'}


class EgoRooms:
    """Frames of one split, decoded when asked for."""

    def __init__(self, root: str | Path, tasks: tuple[str, ...]) -> None:
        """Find the frames; FileNotFoundError where the folder does not have the layout."""
        self.root = Path(root)
        self.tasks = tasks
        self.ids = sorted(path.stem for path in (self.root / 'image').glob('*.jpg'))
        if not self.ids:
            raise FileNotFoundError(
                f'no frames in {self.root}: expected image/ID.jpg and a folder of labels per task')

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """
        Return 'image', uint8 (h, w, 3) RGB, and a label array per task.

        Class ids uint8 (h, w); saliency uint8 (h, w) of 255; edges uint8 0 or 1; normals uint8
        (h, w, 3) as stored; depth uint16 (h, w) in millimetres.
        """
        frame = {'image': _read(self.root / 'image' / f'{self.ids[index]}.jpg', True)}
        for task in self.tasks:
            path = self.root / _FOLDERS.get(task, task) / f'{self.ids[index]}.png'
            label = _read(path, task == 'normals')
            frame[task] = (label > 127).astype(np.uint8) if task == 'edges' else label
        return frame


def _read(path: Path, colour: bool) -> np.ndarray:
    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_UNCHANGED
    array = cv2.imread(str(path), flags)
    if array is None:
        raise FileNotFoundError(f'cannot read {path}: it is missing or no picture')
    return np.ascontiguousarray(array[..., ::-1]) if colour else array
