# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a user may change from frame to frame, as one immutable value."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
import math

from adamtl_ros.tasks import ordered

STATIC, SHADOW, ADAPTIVE = MODES = 'static', 'shadow', 'adaptive'
FIXED, RANDOM = BLIND = 'fixed', 'random'
"""
Modes to compare with alone, which no node runs in: sets of blocks that look at no frame.

The set that is best within the budget for frames in general, and one that is drawn.
"""

OUTPUT_SIZES = ('network', 'camera', 'divided')
MAX_WEIGHT = 10.0
MOST_FRAMES = 100_000


def check_budget(budget: float | str) -> float:
    """Return the budget as a float; ValueError unless it is a number in (0, 1], maybe as text."""
    try:
        value = float(budget)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 < value <= 1.0:
        raise ValueError(
            f'budget {budget!r}: it is a share of the dense cost, a number above 0 and at most 1')
    return value


@dataclass(frozen=True)
class Settings:
    """
    How frames are processed.

    mode: 'static' (dense), 'shadow' (dense, the policy beside it) or 'adaptive'; to compare with,
    'fixed': the set of blocks that the policy gives frames that it does not look at.
    budget: share of the dense cost of `tasks` that a frame may cost, in (0, 1]; None lets the
    policy choose by its own threshold, which one that was trained with budgets does not do.
    tasks: what is computed, by name.  weights: how much the policy heeds each task, in [0, 10].
    output_size: of the outputs, 'network', 'camera', or 'divided': see `size`.
    compare: in mode shadow, run the policy beside the dense network (else its figures are NaN);
    in mode adaptive, run the dense network beside the policy; None is what the mode is for: yes
    in shadow, no in adaptive.  What is published is the same either way.
    Of a stream (see runtime.stream), where `budget` is the mean of its frames: cap, the largest
    share that a single frame may cost, at least the budget; horizon, the number of frames over
    which the mean is held; reuse, whether a picture that looks like the one that was computed
    last has its result; warp, whether one that moved since then may have it, warped along the
    optical flow, so that fewer frames are computed, and those better; fuse, whether what decoders
    say of a computed frame is averaged with what they said of the same places before (both of no
    use without reuse); refresh, after how many frames at most one is computed all the same.
    skip_empty: the policy's path leaves out the decoder of a task that the frame has nothing for,
    where the model can tell, and answers that there is nothing.
    confidence, gating_map, raw: compute these extras.
    Raises ValueError, naming the field, its value and what is allowed.
    """

    mode: str = 'static'
    budget: float | None = 1.0
    tasks: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    output_size: str = 'network'
    compare: bool | None = None
    cap: float = 1.0
    horizon: int = 50
    reuse: bool = True
    warp: bool = True
    fuse: bool = True
    refresh: int = 30
    skip_empty: bool = True
    confidence: bool = False
    gating_map: bool = False
    raw: bool = False

    def __post_init__(self) -> None:
        """Check every field, and bring the tasks into their fixed order."""
        if self.mode not in (*MODES, *BLIND):
            raise ValueError(f'mode {self.mode!r}: choose one of {", ".join(MODES)}')
        if self.output_size not in OUTPUT_SIZES:
            raise ValueError(
                f'output_size {self.output_size!r}: choose one of {", ".join(OUTPUT_SIZES)}')
        if self.budget is not None:
            object.__setattr__(self, 'budget', check_budget(self.budget))
        object.__setattr__(self, 'cap', check_budget(self.cap))
        if self.budget is not None and self.cap < self.budget:
            raise ValueError(
                f'cap {self.cap:g}: no frame may cost more than that, and their mean is to be '
                f'{self.budget:g}; give a cap from the budget to 1')
        for key in ('horizon', 'refresh'):
            value = getattr(self, key)
            if not isinstance(value, int) or not 1 <= value <= MOST_FRAMES:
                raise ValueError(
                    f'{key} {value!r}: a whole number of frames from 1 to {MOST_FRAMES}')
        if not isinstance(self.skip_empty, bool):
            raise ValueError(f'skip_empty {self.skip_empty!r}: give true or false')
        object.__setattr__(self, 'tasks', ordered(self.tasks))
        for task, weight in self.weights.items():
            ordered([task])
            if not 0.0 <= weight <= MAX_WEIGHT:
                raise ValueError(
                    f'weight {weight!r} of task {task}: a number from 0 to {MAX_WEIGHT:g}')

    def size(self, network: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int]:
        """
        Return the (width, height) of the outputs for those of the network's input and a picture.

        'divided' is the picture's divided by the whole number, of those that leave no rest, that
        comes nearest to the network's width: consumers that crop or thin out need no fractions.
        """
        if self.output_size != 'divided':
            return network if self.output_size == 'network' else picture
        common = math.gcd(*picture)
        divisors = [each for each in range(1, common + 1) if common % each == 0]
        best = min(divisors, key=lambda each: abs(math.log(picture[0] / each / network[0])))
        return picture[0] // best, picture[1] // best

    @property
    def compares(self) -> bool:
        """Return whether both paths, dense and the policy's, are run and compared."""
        if self.mode in ('static', *BLIND):
            return False
        return self.mode == 'shadow' if self.compare is None else self.compare
