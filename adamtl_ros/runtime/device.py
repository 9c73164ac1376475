# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The devices that torch runs on, by their names in settings."""

import torch


def device(name: str) -> torch.device:
    """Return the device 'cpu', 'cuda' or 'cuda:N'; ValueError: another name, or not there."""
    kind, _, number = name.partition(':')
    if kind == 'cpu' and not number:
        return torch.device('cpu')
    if kind != 'cuda' or (number and not number.isdigit()):
        raise ValueError(f'device {name!r}: choose cpu, cuda or cuda:N')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise ValueError(
            f'device {name!r} is not there: torch sees {count} CUDA devices; choose cpu, or '
            'install a CUDA build of torch and its driver')
    return torch.device(name)
