# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
What all readers share: labelled frames of one split in one form, decoded when asked for.

A frame is a dict of arrays of one height and width:

    image        uint8 (h, w, 3) RGB
    semseg, human_parts
                 uint8 (h, w) class ids, 255: none
    saliency     uint8 (h, w), of 255
    edges        uint8 (h, w), 0 or 1
    normals      uint8 (h, w, 3), (n + 1) * 127.5 of unit normals in the optical frame (x right,
                 y down, z forward) that face the camera; zero: none
    depth        uint16 (h, w), millimetres; 0: none
"""

from collections.abc import Iterable
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adamtl_ros.camera import Camera
from adamtl_ros.datasets.augment import Augmentation
from adamtl_ros.tasks import IGNORE
from adamtl_ros.tasks import ordered
from adamtl_ros.tasks import TASKS


class Frames:
    """
    The frames of one split; a subclass knows where the files lie and what they hold.

    layout: name of the layout.  labelled: the tasks that have labels.  classes: class names of
    those that have classes.  augmentation: as published for this data set; None: no such thing.
    edge_tolerance: how far edges may lie off in evaluation, as a share of the diagonal.
    """

    layout = ''
    labelled: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = {}
    augmentation: Augmentation | None = None
    edge_tolerance = 0.0075

    def __init__(self, root: str | Path, tasks: Iterable[str], ids: list[str]) -> None:
        """Check that the tasks have labels, and that every file is there."""
        self.root = Path(root)
        self.tasks = ordered(tasks)
        self.ids = ids
        for task in self.tasks:
            if task not in self.labelled:
                raise ValueError(
                    f'{self.root}: the layout {self.layout} has no labels of {task}: it has '
                    f'{", ".join(self.labelled)}')
        wanted = [path for each in ids for path in self.files(each)]
        missing = [path for path in wanted if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f'no file {missing[0]}, and {len(missing) - 1} more of {len(wanted)} that the '
                f'split needs: the layout {self.layout} is described in docs/datasets.md')

    def files(self, name: str) -> list[Path]:
        """Return the files that a frame is read from."""
        raise NotImplementedError

    def image(self, name: str) -> np.ndarray:
        """Return uint8 (h, w, 3) RGB."""
        raise NotImplementedError

    def label(self, name: str, task: str) -> np.ndarray:
        """Return the label of a frame as this module describes it."""
        raise NotImplementedError

    def camera(self, index: int) -> Camera | None:
        """
        Return the camera of a frame, of the frame's size; None where the data set tells of none.

        FileNotFoundError or ValueError name the file that is missing, damaged or does not fit.
        """
        return None

    def clips(self) -> list[list[int]]:
        """
        Return the frames clip by clip, in the order they were taken; one that stands alone is one.

        ValueError names a clip in the middle of which a frame is missing.
        """
        return [[index] for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return a frame; ValueError or OSError name the file that is damaged or does not fit."""
        name = self.ids[index]
        frame = {'image': self.image(name)}
        size = frame['image'].shape[:2]
        for task in self.tasks:
            label = frame[task] = self.label(name, task)
            if label.shape[:2] != size:
                raise ValueError(
                    f'{self.root}: the {task} label of {name} is {label.shape[1]}x'
                    f'{label.shape[0]} pixels, its image {size[1]}x{size[0]}: they must be alike')
            if TASKS[task].kind == 'classes':
                self._check_classes(name, task, label)
        return frame

    def _check_classes(self, name: str, task: str, label: np.ndarray) -> None:
        count = len(self.classes[task])
        wrong = label[(label >= count) & (label != IGNORE)]
        if wrong.size:
            raise ValueError(
                f'{self.root}: the {task} label of {name} has the value {wrong[0]}: the classes '
                f'are 0 to {count - 1}, and {IGNORE} where there is none')


def read_stored(path: Path) -> np.ndarray:
    """
    Return a picture as uint8 (h, w, 3) RGB, its pixels where they are stored.

    A label is of those pixels, so what EXIF says of turning the picture is not heeded.

    FileNotFoundError: no such file.  ValueError: truncated, no picture, or of more than 8 bits.
    """
    _check_bits(path, 8)
    return _read(path, 'RGB')


def _read(path: Path, mode: str | None = None) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert(mode) if mode else picture)
    except FileNotFoundError:
        raise FileNotFoundError(f'no file {path}') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} is damaged or no picture: {error}') from error


def _check_bits(path: Path, bits: int, palette: bool = True) -> None:
    """Refuse what Pillow would scale in silence: PNGs of other depths, and values of a palette."""
    # https://www.w3.org/TR/png/#11IHDR: signature, length, type, width, height, depth, colour.
    try:
        with path.open('rb') as file:
            header = file.read(26)
    except OSError:
        return  # reading the picture says it
    if len(header) < 26 or not header.startswith(b'\x89PNG') or header[12:16] != b'IHDR':
        return
    depth, indexed = header[24], header[25] == 3
    if indexed and not palette:
        raise ValueError(f'{path} has a palette: store the values themselves, in {bits} bits')
    if depth != bits and not indexed:
        raise ValueError(
            f'{path} has {depth} bits a sample: expected {bits}; store it with {bits}, each value '
            'as docs/datasets.md says')


def picture_size(path: Path) -> tuple[int, int]:
    """Return (width, height); raises as `read_stored` does."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except FileNotFoundError:
        raise FileNotFoundError(f'no file {path}') from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} is damaged or no picture: {error}') from error


def read_grey(path: Path, bits: int = 8, *, palette: bool = False) -> np.ndarray:
    """
    Return the values of a picture of one channel, palette indices as such where allowed.

    bits: of a value.  ValueError where it has several channels or is of other bits.
    """
    _check_bits(path, bits, palette)
    array = _read(path)
    if array.ndim != 2:
        raise ValueError(f'{path} has {array.shape[-1]} channels: expected one')
    return array


def read_array(path: Path, dimensions: int) -> np.ndarray:
    """Return a numeric array of an .npy file; ValueError where it is damaged or another kind."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f'no file {path}') from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f'{path} is damaged or no array of numbers: {error}') from error
    if array.ndim != dimensions or not np.issubdtype(array.dtype, np.number) \
            or not np.isfinite(array).all():
        raise ValueError(
            f'{path} holds {array.dtype} {array.shape}: expected {dimensions} dimensions of '
            'finite numbers')
    return array


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; ValueError where it is damaged or another thing."""
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise FileNotFoundError(f'no file {path}') from None
    except ValueError as error:
        raise ValueError(f'{path} is damaged or no JSON: {error}') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path} holds {type(values).__name__}: expected an object')
    return values


def read_mat(path: Path, variable: str) -> Any:
    """Return a variable of a MATLAB file; ValueError where it is damaged or lacks it."""
    from scipy.io import loadmat
    try:
        return loadmat(str(path), variable_names=[variable])[variable]
    except FileNotFoundError:
        raise FileNotFoundError(f'no file {path}') from None
    except KeyError:
        raise ValueError(f'{path} has no variable {variable}') from None
    except Exception as error:  # scipy raises whatever the damaged place brings about
        raise ValueError(f'{path} is damaged or no MATLAB file: {error}') from error


def split_ids(path: Path) -> list[str]:
    """Return the ids of a split's list; FileNotFoundError names the lists that there are."""
    if not path.is_file():
        others = ', '.join(sorted(each.stem for each in path.parent.glob('*.txt'))) or 'none'
        raise FileNotFoundError(f'no list {path} of the split {path.stem!r}: there are {others}')
    ids = path.read_text(encoding='utf-8').split()
    if not ids:
        raise ValueError(f'the split {path.stem!r} is empty: {path} names no frame')
    return ids
