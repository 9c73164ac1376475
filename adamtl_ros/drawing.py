# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of what the tasks say; all of them are uint8 (height, width, 3) RGB."""

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
import math
from typing import NamedTuple

import cv2
import numpy as np

from adamtl_ros.tasks import TASKS

NEAR, FAR = 0.3, 8.0
"""Depths in metres that are drawn brightest and darkest, with the logarithm in between."""

_IGNORED = (128, 128, 128)
_TEXT = (235, 235, 235)
_PAPER = (24, 24, 24)
_LINE = (240, 190, 60)
_COMPUTED = (90, 170, 240)
_WARPED = (200, 100, 190)
_REUSED = (90, 190, 120)
_STEPS = [digit * 10 ** power for power in range(9) for digit in (1, 2, 5)]
"""Of frames between two numbers on an axis."""


@cache
def _palette(task: str, bits: int = 8) -> np.ndarray:
    """Return uint8 (2 ** bits, 3), the colour of every class id; the last one is none."""
    palette = np.array(TASKS[task].palette, np.uint8)
    # Checkpoints may have more classes than the palette has colours.
    table = palette[np.arange(1 << bits) % len(palette)]
    table[-1] = _IGNORED
    return table


def _heat(values: np.ndarray) -> np.ndarray:
    """Colour uint8 (h, w)."""
    return cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def _bytes(values: np.ndarray) -> np.ndarray:
    """Return [0, 1] as uint8; what is not a number is 0."""
    return (np.nan_to_num(values, nan=0.0).clip(0, 1) * 255).astype(np.uint8)


def colourise(task: str, array: np.ndarray) -> np.ndarray:
    """
    Draw one output as it is published.

    array: (h, w) uint8 or uint16 class ids, or float [0, 1] or metres, or (h, w, 3) unit normals.
    Edges are dark lines on white, saliency and depth a heat map (near is bright, no depth black),
    normals (n + 1) / 2 as RGB with black where invalid.  ValueError on an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f'unknown task {task!r}: the tasks are {", ".join(TASKS)}')
    kind = TASKS[task].kind
    if kind == 'classes':
        return _palette(task, 8 if array.dtype.itemsize == 1 else 16)[array]
    if kind == 'normals':
        known = np.isfinite(array).all(-1, keepdims=True)
        return np.where(known, _bytes((array + 1) / 2), 0).astype(np.uint8)
    if kind == 'depth':
        known = np.isfinite(array) & (array > 0)
        metres = np.where(known, array, FAR)
        near = 1 - np.log(metres / NEAR) / np.log(FAR / NEAR)
        return np.where(known[..., None], _heat(_bytes(near)), 0).astype(np.uint8)
    if task == 'edges':
        return cv2.cvtColor(255 - _bytes(array), cv2.COLOR_GRAY2RGB)
    return _heat(_bytes(array))


def _ridges(edges: np.ndarray) -> np.ndarray:
    """Thin edges (h, w) in [0, 1] to lines: uint8 (h, w), 255 on the ridge of a likely edge."""
    smooth = cv2.GaussianBlur(np.nan_to_num(edges.astype(np.float32)), (3, 3), 0)
    ridge = np.zeros(edges.shape, bool)
    for window in (np.ones((1, 5), np.uint8), np.ones((5, 1), np.uint8)):
        # Highest in the window, and the window is not merely level, as it is along a line.
        ridge |= (smooth >= cv2.dilate(smooth, window)) & (
            smooth - cv2.erode(smooth, window) > 0.02)
    return (ridge & (edges > 0.5)).astype(np.uint8) * 255


def overlay(
        image: np.ndarray, outputs: Mapping[str, np.ndarray],
        tasks: Sequence[str] = tuple(TASKS)) -> np.ndarray:
    """
    Draw the outputs of the tasks over an RGB image, at the image's size.

    Classes tint it, what is not salient is darkened, edges are white lines; normals and depth
    would hide the image and are insets at its bottom.  Tasks without an output are left out.
    """
    height, width = image.shape[:2]
    drawn = [task for task in TASKS if task in tasks and task in outputs]
    picture = np.array(image)
    if 'saliency' in drawn:
        light = _bytes(0.45 + 0.55 * outputs['saliency'])
        light = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
        picture = cv2.multiply(picture, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    if 'semseg' in drawn:
        tint = _fit(colourise('semseg', outputs['semseg']), width, height)
        picture = cv2.addWeighted(picture, 0.62, tint, 0.38, 0)
    if 'human_parts' in drawn:
        parts = outputs['human_parts']
        tint = _fit(colourise('human_parts', parts), width, height)
        none = np.iinfo(parts.dtype).max
        on = _fit(((parts > 0) & (parts != none)).astype(np.uint8), width, height)
        cv2.copyTo(cv2.addWeighted(picture, 0.5, tint, 0.5, 0), on, picture)
    if 'edges' in drawn:
        line = cv2.resize(
            _ridges(outputs['edges']), (width, height), interpolation=cv2.INTER_LINEAR)
        cv2.copyTo(np.full_like(picture, 255), (line > 127).astype(np.uint8), picture)
    insets = [task for task in ('normals', 'depth') if task in drawn]
    size = (width // 4, height // 4)
    for index, task in enumerate(insets if min(size) > 1 else ()):
        inset = cv2.resize(colourise(task, outputs[task]), size, interpolation=cv2.INTER_AREA)
        left = index * size[0]
        picture[height - size[1]:, left:left + size[0]] = inset
        cv2.rectangle(
            picture, (left, height - size[1]), (left + size[0] - 1, height - 1), _TEXT, 1)
    return picture


def gating_picture(gating_map: np.ndarray, image: np.ndarray) -> np.ndarray:
    """
    Draw as heat over the grey image how much of the encoder ran where.

    gating_map: uint8 (h, w), 255 where every block ran.  image: uint8 (H, W, 3).
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    heat = _fit(_heat(gating_map), image.shape[1], image.shape[0])
    return cv2.addWeighted(grey, 0.4, heat, 0.6, 0)


def _fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize without mixing values."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)


def text(line: str, width: int, height: int = 20) -> np.ndarray:
    """Return a strip with one line of text, smaller where it would not fit."""
    strip = np.full((height, width, 3), _PAPER, np.uint8)
    scale = 0.45
    wide = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
    scale = min(scale, scale * (width - 8) / max(wide, 1))
    cv2.putText(
        strip, line, (4, height - 6), cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT, 1, cv2.LINE_AA)
    return strip


def sheet(
        titles: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray]]], *,
        legend: Mapping[str, Sequence[str]] | None = None, cell: int = 256) -> np.ndarray:
    """
    Lay pictures out with a title over every column and a label over every row.

    titles: a column each.  rows: (label, a picture a column); pictures are resized to cell pixels
    of width.  legend: class names of class tasks, which are listed below with their colours.
    """
    width = len(titles) * cell
    parts = [np.hstack([text(title, cell) for title in titles])]
    for label, pictures in rows:
        height = max(1, round(cell * pictures[0].shape[0] / pictures[0].shape[1]))
        parts.append(text(label, width, 24))
        parts.append(np.hstack([
            cv2.resize(picture, (cell, height), interpolation=cv2.INTER_AREA)
            for picture in pictures]))
    for task, names in (legend or {}).items():
        parts += _legend(task, names, width)
    return np.vstack(parts)


class Stretch(NamedTuple):
    """
    What frames in a row cost and ran, in the mean.

    cost: a share of the dense cost, NaN where unknown.  warped, reused: shares of the frames.
    blocks: share of each block that ran, first to last, empty where unknown.
    """

    cost: float = math.nan
    warped: float = 0.0
    reused: float = 0.0
    blocks: tuple[float, ...] = ()


def over_time(
        stretches: Sequence[Stretch], budget: float, width: int, *, frames: int = 1,
        parts: Sequence[tuple[str, int]] = ()) -> np.ndarray:
    """
    Draw stretches of so many frames each, a column each, in a picture of that width.

    From above: what they cost, with the budget as a line; how they were answered; the blocks that
    ran.  parts: (label, frames), from the first frame on; a line tells where each begins.
    """
    side, tall, row = 64, 120, 10
    number = max(len(each.blocks) for each in stretches)
    heading, chart, how, blocks, axis = charts = [
        np.full((height, width, 3), _PAPER, np.uint8)
        for height in (24 if parts else 0, tall, 28, row * number, 20)]
    total = frames * len(stretches)

    def at(frame: float) -> int:
        return side + round((width - side) * frame / total)

    scale = (tall - 14) / max(1.0, np.nanmax([0.0, *(each.cost for each in stretches)]))
    gap = int(at(frames) - side > 4)  # between columns that are wide enough
    for place, each in enumerate(stretches):
        column = slice(at(frames * place), at(frames * (place + 1)) - gap)
        known = not math.isnan(each.cost)
        if known:
            chart[tall - round(each.cost * scale):, column] = _COMPUTED
        levels = 6 + np.cumsum([0, round(16 * each.warped), round(16 * each.reused)])
        for top, bottom, colour in zip(levels, (*levels[1:], 22), (
                _WARPED, _REUSED, _COMPUTED if known else _IGNORED)):
            how[top:bottom, column] = colour
        for block, share in enumerate(each.blocks):
            colour = np.array(_PAPER) + share * (np.array(_COMPUTED) - np.array(_PAPER))
            blocks[row * block + 1:row * (block + 1), column] = colour.round()
    line = tall - round(budget * scale)
    chart[max(line - 1, 0):line + 1, side:] = _LINE
    chart[tall - round(scale) - 4:][:20, :side] = text('cost 1', side)
    chart[-20:, :side] = text('0', side)
    how[4:24, :side] = text('answer', side)
    axis[:, :side] = text('frame', side)
    if number >= 4:
        blocks[:20, :side] = text('block 1', side)
        blocks[-20:, :side] = text(f'block {number}', side)
    step = next(each for each in _STEPS if total <= 16 * each)
    for frame in range(0, total, step):
        axis[:, at(frame):at(frame) + 60] = text(str(frame), 60)[:, :width - at(frame)]
    first = 0
    for label, count in parts:
        left, right = at(first), min(at(first + count), width)
        if right - left > 16:
            heading[:, left:right] = text(label, right - left, 24)
        for picture in charts:
            picture[:, left:left + 2] = _TEXT
        first += count
    title = text('the frames that were answered, in their order', width, 24)
    return np.vstack([title, _keys((
        (f'budget {budget:g}', _LINE), ('computed', _COMPUTED),
        ('warped along the optical flow', _WARPED), ('reused: it looked the same', _REUSED),
        ('unknown', _IGNORED)), width // 6, width), *charts])


def _keys(
        entries: Sequence[tuple[str, tuple[int, ...] | np.ndarray]], entry: int, width: int,
) -> np.ndarray:
    """Return a row of names beside their colours, each entry pixels wide, in one of that width."""
    row = np.full((22, width, 3), _PAPER, np.uint8)
    for left, (name, colour) in zip(range(0, width, entry), entries):
        row[4:18, left:left + 18] = colour
        row[:, left + 20:left + entry] = text(name, entry - 20, 22)
    return row


def _legend(task: str, names: Sequence[str], width: int) -> list[np.ndarray]:
    """Return rows of class names beside their colours."""
    entry = 128
    per_row = max(1, width // entry - 1)
    rows = []
    for start in range(0, len(names), per_row):
        colours = _palette(task, 16)[start:start + per_row]
        rows.append(np.hstack([
            text(task if start == 0 else '', entry, 22),
            _keys(list(zip(names[start:], colours)), entry, width - entry)]))
    return rows
