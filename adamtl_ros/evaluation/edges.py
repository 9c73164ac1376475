# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Matching of predicted edges to labelled ones with a tolerance, after Martin et al. (PAMI 2004).

Both are thinned to lines of one pixel.  A predicted pixel may answer for one labelled pixel within
the tolerance, and the other way round; as many pairs as possible are formed.  The Berkeley
benchmark forms pairs of least total distance instead, which matters to its counts only where it
would rather leave two pixels alone.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from adamtl_ros.datasets.thinning import thin

TOLERANCE = 0.0075
"""Of the picture's diagonal: the Berkeley benchmark's; a reader's `edge_tolerance` may differ."""

THRESHOLDS = np.arange(1, 20) / 20
"""At which a prediction is cut."""


def matched(predicted: np.ndarray, labelled: np.ndarray, radius: float) -> int:
    """Return how many pairs two bool (h, w) maps of thin edges have within so many pixels."""
    height, width = labelled.shape
    rows, columns = np.nonzero(predicted)
    reach = int(radius)
    number = np.full((height + 2 * reach, width + 2 * reach), -1, dtype=np.int32)
    count = int(labelled.sum())
    number[reach:reach + height, reach:reach + width][labelled] = np.arange(count)
    if not count or not len(rows):
        return 0
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    near = y ** 2 + x ** 2 <= radius ** 2
    partners = number[rows[:, None] + reach + y[near], columns[:, None] + reach + x[near]]
    valid = partners >= 0
    starts = np.concatenate(([0], valid.sum(1).cumsum()))
    # As the flow from a source through predicted and labelled pixels to a sink: what SciPy has for
    # matching alone gives the same, but takes minutes where both are dense.
    pixels = len(rows)
    source, sink = pixels + count, pixels + count + 1
    goals = np.concatenate((partners[valid] + pixels, np.full(count, sink), np.arange(pixels)))
    starts = np.concatenate((
        starts, starts[-1] + np.arange(1, count + 1), [len(goals), len(goals)]))
    graph = csr_array((np.ones(len(goals), dtype=np.int32), goals, starts), (sink + 1, sink + 1))
    return int(maximum_flow(graph, source, sink, method='dinic').flow_value)


class EdgeCounts:
    """Counts over frames from which odsF follows: F at the best threshold for the data set."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance
        self.pairs, self.predicted = np.zeros((2, len(THRESHOLDS)), dtype=np.int64)
        self.labelled = 0

    def update(self, probability: np.ndarray, label: np.ndarray) -> None:
        """Add a frame: (h, w) probabilities in [0, 1], and the label, edges being nonzero."""
        lines = thin(label > 0)
        radius = self.tolerance * float(np.hypot(*label.shape))
        self.labelled += int(lines.sum())
        for index, threshold in enumerate(THRESHOLDS):
            mask = probability >= threshold
            if mask.any():
                found = thin(mask)
                self.predicted[index] += int(found.sum())
                self.pairs[index] += matched(found, lines, radius)

    def ods_f(self) -> float:
        """Return the best F over the thresholds; NaN where nothing was labelled."""
        if not self.labelled:
            return float('nan')
        # 2 P R / (P + R) with P = pairs / predicted and R = pairs / labelled.
        return float((2 * self.pairs / (self.predicted + self.labelled)).max())
