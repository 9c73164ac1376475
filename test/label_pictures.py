# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Label real pictures by what other networks say of them, for `adamtl train pictures=OUT`.

    python test/label_pictures.py PHOTOS OUT PICTURES

PHOTOS holds *.jpg; PICTURES has the folder `teachers` that test/model_card.py describes.  Persons:
DeepLab on the picture and, where it is large, on four overlapping parts of it, so that small
people are found too; near those MediaPipe's selfie mask counts a third.  Where they contradict
each other it is open (128).  Classes: what DeepLab is sure of, seen both ways round; it knows no
walls and floors, and animals and vehicles are objects.  Saliency: U2-Net.  Look at what comes out
before training on it.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from adamtl_ros.picture_files import read_picture
from adamtl_ros.training.pictures import CLASSES
from adamtl_ros.training.pictures import PARTS
from adamtl_ros.training.pictures import UNKNOWN
from model_card import Pictures

SHORT, LONG = 240, 426
"""Pixels of the shorter side, and the most of the longer one."""

PART = 0.6
"""Share of a side that a part has; parts of pictures smaller than LARGE are not looked at."""

LARGE = 380


def person(teachers: Pictures, image: np.ndarray) -> np.ndarray:
    """Return uint8 (h, w), how likely each pixel is of a person, UNKNOWN where that is open."""
    height, width = image.shape[:2]
    whole = teachers.person(image)
    parts = np.zeros((2, height, width), np.float32)
    if min(height, width) >= LARGE:
        h, w = round(height * PART), round(width * PART)
        for top in (0, height - h):
            for left in (0, width - w):
                place = np.s_[top:top + h, left:left + w]
                # At its own border a part knows least of what is around.
                trust = np.minimum.outer(*(
                    np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1))
                    for side in (h, w))).astype(np.float32)
                parts[0][place] += trust * teachers.person(np.ascontiguousarray(image[place]))
                parts[1][place] += trust
        other = parts[0] / parts[1]
    else:
        other = teachers.person(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    said = (whole + other) / 2
    selfie = teachers.selfie_share(image)
    if (said > 0.5).mean() > 0.01:
        reach = np.ones([max(height // 10, 3)] * 2, np.uint8)
        near = cv2.dilate((said > 0.35).astype(np.uint8), reach) > 0
        unknown = (np.abs(whole - other) > 0.6) | (near & (np.abs(said - selfie) > 0.75)) | (
            ~near & (selfie > 0.7))
        said = np.where(near, (2 * said + selfie) / 3, said)
    else:
        unknown = (np.maximum(whole, other) > 0.5) | (said > 0.3) | (
            (selfie > 0.8) & (said > 0.05))
    label = np.rint(said * 255).astype(np.uint8)
    label[label == UNKNOWN] += 1
    label[unknown] = UNKNOWN
    return label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('photos', 'out', 'pictures'):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    teachers = Pictures(options.pictures)
    for part in (*PARTS, CLASSES):
        (options.out / part).mkdir(parents=True, exist_ok=True)
    for path in track(sorted(options.photos.glob('*.jpg')), 'labelling'):
        image = read_picture(path)
        scale = SHORT / min(image.shape[:2])
        size = [min(round(side * scale), LONG) for side in image.shape[1::-1]]
        labels = {
            'person': person(teachers, image), 'semseg': teachers.classes(image),
            'saliency': np.rint(teachers.u2net(image) * 255).astype(np.uint8)}
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(options.out / 'image' / path.name), small[..., ::-1],
                    [cv2.IMWRITE_JPEG_QUALITY, 85])
        for part, label in labels.items():
            how = cv2.INTER_AREA if part == 'saliency' else cv2.INTER_NEAREST
            cv2.imwrite(str(options.out / part / f'{path.stem}.png'),
                        cv2.resize(label, size, interpolation=how))


if __name__ == '__main__':
    main()
