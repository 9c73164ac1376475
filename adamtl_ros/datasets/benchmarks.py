# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Readers of PASCAL-Context and NYUDv2 in the layouts in which multi-task learning publishes them.

Both come from Maninis et al. (ASTMT, CVPR 2019) and are what MTI-Net and AdaMTL read.  Their
normals follow NYU's colouring (x right, y down, z towards the camera); what is handed out is in
the optical frame, so z changes its sign.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from adamtl_ros.datasets.augment import Augmentation
from adamtl_ros.datasets.augment import encode_normals
from adamtl_ros.datasets.frames import Frames
from adamtl_ros.datasets.frames import read_array
from adamtl_ros.datasets.frames import read_grey
from adamtl_ros.datasets.frames import read_mat
from adamtl_ros.datasets.frames import read_stored
from adamtl_ros.datasets.frames import split_ids
from adamtl_ros.datasets.thinning import thin
from adamtl_ros.tasks import HUMAN_PARTS_CLASSES
from adamtl_ros.tasks import IGNORE

NORMALS_AXES = (1, 1, -1)
"""Signs that take normals of the published layouts to the optical frame, and back."""

VOC_CLASSES = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
    'train', 'tvmonitor')
NYU_CLASSES = (
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
    'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
    'floor mat', 'clothes', 'ceiling', 'books', 'refridgerator', 'television', 'paper', 'towel',
    'shower curtain', 'box', 'whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp',
    'bathtub', 'bag', 'otherstructure', 'otherfurniture', 'otherprop')

_PERSON = 15
_PARTS = {
    part: number for number, parts in enumerate((
        'hair head lear rear lebrow rebrow leye reye mouth nose', 'neck torso', 'luarm ruarm',
        'llarm rlarm lhand rhand', 'luleg ruleg', 'llleg rlleg lfoot rfoot'), 1)
    for part in parts.split()}

_NORMALS_CLASSES = np.array([
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49,
    50, 51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101,
    104, 105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165,
    172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219, 220, 223, 225, 228,
    230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275,
    281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319,
    323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380,
    383, 384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430,
    432, 440, 441, 442, 443, 444, 446, 454, 457])
"""Of PASCAL-Context's 459 classes those that NYUDv2 names too, and tvmonitor: where the distilled
normals, predicted by a network that was trained on NYUDv2, are believed."""


class PascalContext(Frames):
    """
    PASCAL-Context with five tasks, normals and saliency distilled (`PASCAL_MT`).

    An image without people has no human_parts labels (all 255), so that neither training nor
    evaluation counts it, as published.
    """

    layout = 'pascal-context'
    labelled = ('semseg', 'human_parts', 'saliency', 'normals', 'edges')
    classes = {'semseg': VOC_CLASSES, 'human_parts': HUMAN_PARTS_CLASSES}
    augmentation = Augmentation(rotation=20.0, scales=(0.75, 1.25))

    def __init__(
            self, root: str | Path, tasks: Iterable[str] = labelled, split: str = 'val') -> None:
        """Read ImageSets/Context/SPLIT.txt and look for the files."""
        ids = split_ids(Path(root) / 'ImageSets' / 'Context' / f'{split}.txt')
        super().__init__(root, tasks, ids)

    def files(self, name: str) -> list[Path]:
        """Return the image and the labels of the tasks."""
        paths = [self._image(name)]
        if 'semseg' in self.tasks:
            paths.append(self._semseg(name))
        if 'human_parts' in self.tasks:
            paths.append(self._parts(name))
        if 'saliency' in self.tasks:
            paths.append(self._saliency(name))
        if 'normals' in self.tasks:
            paths.append(self._normals(name))
        if {'normals', 'edges'} & set(self.tasks):
            paths.append(self._context(name))
        return paths

    def _image(self, name: str) -> Path:
        return self.root / 'JPEGImages' / f'{name}.jpg'

    def _semseg(self, name: str) -> Path:
        voc = self.root / 'semseg' / 'VOC12' / f'{name}.png'
        return voc if voc.is_file() else self.root / 'semseg' / 'pascal-context' / f'{name}.png'

    def _parts(self, name: str) -> Path:
        return self.root / 'human_parts' / f'{name}.mat'

    def _saliency(self, name: str) -> Path:
        return self.root / 'sal_distill' / f'{name}.png'

    def _normals(self, name: str) -> Path:
        return self.root / 'normals_distill' / f'{name}.png'

    def _context(self, name: str) -> Path:
        return self.root / 'pascal-context' / 'trainval' / f'{name}.mat'

    def image(self, name: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB."""
        return read_stored(self._image(name))

    def label(self, name: str, task: str) -> np.ndarray:
        """Return the label as published, in the form of `frames`."""
        if task == 'semseg':
            return read_grey(self._semseg(name), palette=True).astype(np.uint8)
        if task == 'human_parts':
            return self._read_parts(name)
        if task == 'saliency':
            return np.where(read_grey(self._saliency(name)) > 127, 255, 0).astype(np.uint8)
        context = np.asarray(read_mat(self._context(name), 'LabelMap'))
        if task == 'edges':
            jumps = cv2.Laplacian(context.astype(np.float64), cv2.CV_64F)
            return thin(jumps != 0).astype(np.uint8)
        path = self._normals(name)
        normals = read_stored(path)
        if normals.shape[:2] != context.shape:
            raise ValueError(
                f'{path} is {normals.shape[1]}x{normals.shape[0]} pixels, the classes of '
                f'{self._context(name)} {context.shape[1]}x{context.shape[0]}: they must be alike')
        normals[..., 2] = 255 - normals[..., 2]
        normals[~np.isin(context, _NORMALS_CLASSES)] = 0
        return facing(normals, path)

    def _read_parts(self, name: str) -> np.ndarray:
        path = self._parts(name)
        annotation = read_mat(path, 'anno')
        try:
            objects = annotation['objects'][0, 0].reshape(-1)
            people = [each for each in objects if int(each['class_ind'].item()) == _PERSON]
            masks = [
                (_PARTS[str(part['part_name'].item())], part['mask'].astype(bool))
                for each in people if each['parts'].size for part in each['parts'].reshape(-1)]
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(
                f'{path} does not hold the part annotation of PASCAL-Parts: {error!r}') from error
        if not masks:
            # Without parts there is no mask that tells the size.
            with Image.open(self._image(name)) as picture:
                return np.full(picture.size[::-1], IGNORE, dtype=np.uint8)
        label = np.zeros(masks[0][1].shape, dtype=np.uint8)
        for number, mask in masks:
            label[mask] = number
        return label


class NYUD(Frames):
    """NYUDv2 with four tasks (`NYUD_MT`); its class 0 is no class."""

    layout = 'nyud'
    labelled = ('semseg', 'normals', 'edges', 'depth')
    classes = {'semseg': NYU_CLASSES}
    augmentation = Augmentation(rotation=0.0, scales=(1.0, 1.2, 1.5), listed=True)
    edge_tolerance = 0.011
    folders = {'semseg': 'segmentation', 'normals': 'normals', 'edges': 'edge', 'depth': 'depth'}

    def __init__(
            self, root: str | Path, tasks: Iterable[str] = labelled, split: str = 'val') -> None:
        """Read gt_sets/SPLIT.txt and look for the files."""
        super().__init__(root, tasks, split_ids(Path(root) / 'gt_sets' / f'{split}.txt'))

    def files(self, name: str) -> list[Path]:
        """Return the image and the label of each task."""
        return [self._image(name), *(self._path(name, task) for task in self.tasks)]

    def _image(self, name: str) -> Path:
        path = self.root / 'images' / f'{name}.jpg'
        other = path.with_suffix('.png')
        return other if other.is_file() else path

    def _path(self, name: str, task: str) -> Path:
        suffix = 'png' if task == 'semseg' else 'npy'
        return self.root / self.folders[task] / f'{name}.{suffix}'

    def image(self, name: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB."""
        return read_stored(self._image(name))

    def label(self, name: str, task: str) -> np.ndarray:
        """Return the label as published, in the form of `frames`."""
        path = self._path(name, task)
        if task == 'semseg':
            # 0, no class, becomes 255; in uint8 that is what subtracting 1 gives.
            return read_grey(path, palette=True).astype(np.uint8) - np.uint8(1)
        array = read_array(path, 3 if task == 'normals' else 2)
        if task == 'edges':
            return (array > 0).astype(np.uint8)
        if task == 'depth':
            if array.min() < 0 or array.max() > 65:
                raise ValueError(
                    f'{path} holds depths from {array.min():g} to {array.max():g}: expected '
                    'metres from 0 to 65')
            return np.round(array * 1000).astype(np.uint16)
        if array.shape[2] != 3:
            raise ValueError(f'{path} holds {array.shape}: expected (height, width, 3)')
        if np.abs(array).max(initial=0) > 1.01:
            raise ValueError(
                f'{path} holds components up to {np.abs(array).max():g}: expected unit vectors, '
                'zero where there is none')
        return facing(encode_normals(array * np.array(NORMALS_AXES, dtype=np.float32)), path)


def facing(normals: np.ndarray, path: Any) -> np.ndarray:
    """Return coded normals; ValueError where most of them turn away from the camera."""
    z = normals[..., 2][normals.any(-1)]
    if z.size and float((z > 140).mean()) > 0.5:
        raise ValueError(
            f'most normals of {path} turn away from the camera: this copy does not have z towards '
            'the camera, as NYU colours normals')
    return normals
