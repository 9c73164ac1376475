# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Train a network: the dense one, its controllers, then both together (docs/training.md).

Under torchrun each process takes its share of every batch.
"""

from collections.abc import Sequence
import os
import sys

import torch
import torch.distributed as distributed

from adamtl_ros.arguments import Parser
from adamtl_ros.training.begin import device_of
from adamtl_ros.training.config import AFTERWARDS
from adamtl_ros.training.config import read_config
from adamtl_ros.training.teach import measure
from adamtl_ros.training.train import Trainer
from adamtl_ros.training.train import TrainingError


def main(argv: Sequence[str] | None = None) -> int:
    """Run `adamtl train CONFIG [key=value ...]`; 2 where something is wrong, 130 on Ctrl-C."""
    parser = Parser(prog='adamtl train', description=__doc__)
    parser.add_argument('config', help='YAML file of settings')
    parser.add_argument('setting', nargs='*', help='key=value, each over the file')
    arguments = parser.parse_args(argv)
    try:
        config = read_config([arguments.config, *arguments.setting])
        if config.stage in AFTERWARDS:
            if int(os.environ.get('WORLD_SIZE', 1)) > 1:
                raise ValueError(
                    f'stage={config.stage}: start it without torchrun, in one process')
            measure(config)
            return 0
        if 'WORLD_SIZE' in os.environ:
            mine = device_of(config.device)
            if mine.type == 'cuda':
                torch.cuda.set_device(mine)
            distributed.init_process_group('nccl' if mine.type == 'cuda' else 'gloo')
        Trainer(config).run()
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, TrainingError) as error:
        print(f'adamtl train: {error}', file=sys.stderr)
        return 2
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
