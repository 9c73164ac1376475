# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which module may import which: arrows go down, never in a circle, and ROS stays on its side."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import adamtl_ros
from adamtl_ros.cli import COMMANDS
from adamtl_ros.missing import ROS

ROOT = Path(adamtl_ros.__file__).parent

LAYERS = (
    ('arguments', 'calibration', 'camera', 'conversions', 'dds', 'drawing', 'files', 'intrinsics',
     'missing', 'paths', 'picture_files', 'processes', 'tasks', 'waiting'),
    ('network', 'gating'),
    ('runtime',),
    ('datasets', 'training', 'evaluation', 'reference'),
    ('bag', 'nodes', 'sources'),
    ('commands',),
    ('cli',))
"""Folders and modules, the lowest first."""

STARTING_NODES = ('commands.soak', 'commands.top')
"""Commands that hold a node of their own."""

PROGRAMS = ('arguments', 'cli', 'nodes.node', 'nodes.player')
"""What else reads a command line."""


def imported(path: Path) -> set[str]:
    """Return the full names of what a module imports, wherever in it; of `from`, both readings."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f'{path}: a relative import'
            found |= {node.module, *(f'{node.module}.{name.name}' for name in node.names)}
    return found


MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'):
        imported(path)
    # What rosidl makes of messages is not ours, and only where the package is installed.
    for path in ROOT.rglob('*.py')
    if path != ROOT / '__init__.py' and path.relative_to(ROOT).parts[0] != 'msg'}
"""What each module imports."""


@pytest.fixture(scope='module')
def arrows():
    """Return which of our own modules each imports."""
    return {name: {other for other in MODULES if f'adamtl_ros.{other}' in found} - {name}
            for name, found in MODULES.items()}


def test_arrows_go_down(arrows):
    level = {
        name: next(number for number, names in enumerate(LAYERS)
                   if name.partition('.')[0] in names) for name in arrows}
    assert not [(name, other) for name, others in arrows.items() for other in others
                if level[other] > level[name]]


def test_no_module_imports_itself_in_the_end(arrows):
    list(TopologicalSorter(arrows).static_order())  # CycleError names the circle


def test_ros_stays_in_the_nodes_and_the_commands_that_start_them():
    for name, found in MODULES.items():
        ros = [each for each in found if each.startswith((*ROS, 'adamtl_ros.msg'))]
        assert not ros or name.startswith('nodes.') or name in STARTING_NODES, (name, ros)


def test_what_everything_else_does_knows_no_command_line():
    """Commands, and the programs among the nodes, read arguments; others are given values."""
    for name, found in MODULES.items():
        assert 'argparse' not in found or name.startswith('commands.') or name in PROGRAMS, name


def test_each_command_is_a_file():
    files = {name.partition('.')[2] for name in MODULES if name.startswith('commands.')}
    assert files | {'train'} == set(COMMANDS)
