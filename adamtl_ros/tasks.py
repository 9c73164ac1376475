# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The dense tasks: what each one outputs, and how it is published and drawn."""

from collections.abc import Iterable
from dataclasses import dataclass

IGNORE = 255
"""Label of a pixel without annotation, in label images and in published class images."""

MOST_IDS = 254
"""Class ids that 8 bits tell; with more classes, images have 16, and WIDE_IGNORE for none."""

WIDE_IGNORE = 65535

DEPTH_RANGE = (0.05, 50.0)
"""Range of predicted depth in metres, before the lens; the network predicts its logarithm."""

NOMINAL_FOCAL = 0.67
"""Focal length, in image widths, that stands in for an unknown camera: that of training data."""

SEMSEG_CLASSES = (
    'wall', 'floor', 'ceiling', 'opening', 'person', 'chair', 'sofa', 'table', 'bed', 'cabinet',
    'plant', 'screen', 'lamp', 'appliance', 'bath', 'picture', 'textile', 'object')
HUMAN_PARTS_CLASSES = (
    'background', 'head', 'torso', 'upper_arm', 'lower_arm', 'upper_leg', 'lower_leg')

_SEMSEG_PALETTE = (
    (190, 190, 190), (110, 80, 60), (235, 235, 245), (180, 255, 180), (220, 20, 60),
    (255, 160, 0), (150, 60, 220), (139, 90, 43), (255, 105, 180), (120, 120, 60), (0, 160, 0),
    (0, 200, 255), (255, 255, 0), (0, 120, 120), (120, 180, 255), (0, 0, 200), (200, 0, 200),
    (255, 80, 0))
_HUMAN_PARTS_PALETTE = (
    (0, 0, 0), (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255),
    (255, 0, 255))


@dataclass(frozen=True)
class Task:
    """
    One dense task.

    kind: 'classes' (one channel a class, published as the class id), 'map' (one channel, a
    probability), 'normals' (three channels, a unit vector) or 'depth' (one channel, ln metres).
    encoding: of the published image (mono16 for more than MOST_IDS classes).  palette: (r, g, b) a
    class, empty for other kinds.
    """

    name: str
    kind: str
    encoding: str
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    @property
    def channels(self) -> int:
        """Return the number of decoder outputs with the default classes."""
        return {'classes': len(self.classes), 'normals': 3}.get(self.kind, 1)


TASKS: dict[str, Task] = {task.name: task for task in (
    Task('semseg', 'classes', 'mono8', SEMSEG_CLASSES, _SEMSEG_PALETTE),
    Task('human_parts', 'classes', 'mono8', HUMAN_PARTS_CLASSES, _HUMAN_PARTS_PALETTE),
    Task('saliency', 'map', '32FC1'),
    Task('normals', 'normals', '32FC3'),
    Task('edges', 'map', '32FC1'),
    Task('depth', 'depth', '32FC1'),
)}


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return the task names of an iterable in the order of TASKS; ValueError on unknown ones."""
    wanted = list(names)
    unknown = [name for name in wanted if name not in TASKS]
    if unknown:
        raise ValueError(
            f'unknown task {unknown[0]!r}: the tasks are {", ".join(TASKS)}')
    return tuple(name for name in TASKS if name in wanted)
