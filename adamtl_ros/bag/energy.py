# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Joules, where the machine can tell: the processor's RAPL counters, Jetson rails, NVIDIA GPUs."""

from collections.abc import Callable


class Meter:
    """
    Counts joules of the whole machine part that runs the network.

    source: what is read, in words; why not, where nothing is.  available: whether read() can
    say anything.
    """

    def __init__(self, device: str) -> None:
        """Find what can be read; device: as of the Engine."""
        self._read: Callable[[], float] | None = None
        try:
            from zeus.device import get_cpus
            from zeus.device import get_gpus
            from zeus.device import get_soc
        except ImportError:
            self.source = "not measured: install the extra 'energy' (pip install '.[energy]')"
            return
        reasons = []
        for name, find in (
                ('Jetson power rails', lambda: _soc(get_soc())),
                ('NVIDIA GPU', lambda: _gpus(get_gpus(), device)),
                ('RAPL', lambda: _cpus(get_cpus()))):
            if name == 'NVIDIA GPU' and not device.startswith('cuda'):
                continue
            try:
                read = find()
                read()
            except Exception as error:  # zeus has a class of its own for each way to fail
                reasons.append(f'{name}: {" ".join(str(error).split()) or type(error).__name__}')
            else:
                self._read, self.source = read, name
                return
        self.source = 'not measured, this machine does not tell: ' + '; '.join(reasons)

    @property
    def available(self) -> bool:
        """Return whether joules are counted."""
        return self._read is not None

    def read(self) -> float:
        """Return joules since some moment; NaN where they are not counted."""
        return self._read() if self._read is not None else float('nan')


def _soc(soc: object) -> Callable[[], float]:
    def read() -> float:
        measured = soc.get_total_energy_consumption()  # type: ignore[attr-defined]
        total = measured.total_energy_mj
        if total is None:
            total = (measured.cpu_energy_mj or 0.0) + (measured.gpu_energy_mj or 0.0)
        return total / 1000
    return read


def _gpus(gpus: object, device: str) -> Callable[[], float]:
    number = int(device.partition(':')[2] or 0)
    return lambda: (
        gpus.get_total_energy_consumption(number) / 1000)  # type: ignore[attr-defined]


def _cpus(cpus: object) -> Callable[[], float]:
    def read() -> float:
        total = 0.0
        for index in range(len(cpus)):  # type: ignore[arg-type]
            measured = cpus.get_total_energy_consumption(index)  # type: ignore[attr-defined]
            total += measured.cpu_mj + (measured.dram_mj or 0.0)
        return total / 1000
    return read
