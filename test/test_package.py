# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What an installation must hold, whichever way it was made."""

import ast
from importlib import metadata
import os
from pathlib import Path
import subprocess
import sys
from xml.etree import ElementTree

import pytest

import adamtl_ros
from adamtl_ros.missing import OPTIONAL
from adamtl_ros.paths import share

COMMANDS = ['adamtl', 'adamtl_node', 'adamtl_player']


def prefix() -> Path:
    """Where the executables and the ament index are: that of the environment, or a workspace's."""
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    return next(Path(p) for p in prefixes if Path(p, 'lib', 'adamtl_ros').is_dir())


def test_constants_of_the_message_are_the_words_of_the_code() -> None:
    pytest.importorskip('rclpy')
    from adamtl_ros.msg import GatingStats
    from adamtl_ros.nodes.rollout import GUARDS
    from adamtl_ros.runtime.settings import MODES
    for kind, words in (('MODE', MODES), ('GUARD', GUARDS)):
        assert [getattr(GatingStats, f'{kind}_{word.upper()}') for word in words] == list(words)


def test_message_crosses_the_middleware() -> None:
    pytest.importorskip('rclpy')
    from rclpy.serialization import deserialize_message
    from rclpy.serialization import serialize_message

    from adamtl_ros.msg import GatingStats
    from adamtl_ros.msg import TaskStats
    sent = GatingStats(
        mode=GatingStats.MODE_ADAPTIVE, guard=GatingStats.GUARD_WATCHING, frames_received=2**63,
        task_stats=[TaskStats(name='semseg', token_fraction=0.5), TaskStats(
            name='human_parts', agreement=1.0, empty=True)], block_active=[True, False])
    assert deserialize_message(serialize_message(sent), GatingStats) == sent


def test_ament_index_lists_the_package() -> None:
    index = prefix() / 'share' / 'ament_index' / 'resource_index'
    assert (index / 'packages' / 'adamtl_ros').is_file()
    listed = (index / 'rosidl_interfaces' / 'adamtl_ros').read_text()
    assert 'msg/GatingStats.msg' in listed and 'msg/TaskStats.msg' in listed


@pytest.mark.parametrize('path', [
    'package.xml', 'config/glasses.yaml', 'config/fastdds.xml', 'launch/glasses.launch.py',
    'launch/two_cameras.launch.py', 'config/adamtl.rviz', 'config/foxglove.json',
    'config/sros2_policy.xml',
    'msg/GatingStats.msg', 'msg/TaskStats.msg'])
def test_share_holds(path: str) -> None:
    assert share(*path.split('/')).is_file()


def test_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r'config/absent\.yaml of adamtl_ros'):
        share('config', 'absent.yaml')


@pytest.mark.parametrize('command', COMMANDS)
def test_executable_where_ros_looks(command: str) -> None:
    assert os.access(prefix() / 'lib' / 'adamtl_ros' / command, os.X_OK)
    assert os.access(prefix() / 'bin' / command, os.X_OK)


def test_executable_runs() -> None:
    pytest.importorskip('rclpy')
    answer = subprocess.run(
        [prefix() / 'lib' / 'adamtl_ros' / 'adamtl', '--help'],
        capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert 'demo' in answer.stdout


def test_versions_agree() -> None:
    assert ElementTree.parse(share('package.xml')).findtext('version') \
        == metadata.version('adamtl_ros')


def test_typed() -> None:
    assert Path(adamtl_ros.__file__).with_name('py.typed').is_file()


def test_a_viewer_may_read_every_result_and_nothing_else() -> None:
    root = ElementTree.parse(share('config', 'sros2_policy.xml')).getroot()

    def topics(node: str, verb: str) -> set[str]:
        return {topic.text or '' for group in root.iter('topics') if group.get(verb)
                for topic in group
                if any(group in profile for profile in root.iter('profile')
                       if profile.get('node') == node)}

    results = {name for name in topics('adamtl', 'publish') if name.startswith('adamtl/')}
    read = {name for name in topics('adamtl_viewer', 'subscribe') if name.startswith('adamtl/')}
    assert 'adamtl/points' in results
    assert read == results - {'adamtl/transition_event'}


def test_fastdds_profile_has_a_segment_for_large_images() -> None:
    space = {'d': 'http://www.eprosima.com'}
    root = ElementTree.parse(share('config', 'fastdds.xml')).getroot()
    known = {t.findtext('d:transport_id', '', space): t
             for t in root.iterfind('.//d:transport_descriptor', space)}
    participant = root.find('.//d:participant[@is_default_profile="true"]', space)
    assert participant is not None
    used = [t.text or '' for t in participant.iterfind('.//d:transport_id', space)]
    assert sorted(known) == sorted(used)
    kinds = {known[name].findtext('d:type', '', space): known[name] for name in used}
    assert set(kinds) == {'SHM', 'UDPv4'}
    assert int(kinds['SHM'].findtext('d:segment_size', '0', space)) >= 64 * 2**20


@pytest.mark.slow
def test_a_module_that_skips_itself_skips_no_other(tmp_path: Path) -> None:
    """As on a machine with ROS, whose plugins of pytest look into every module."""
    hooks = 'def pytest_launch_collect_makemodule(path, parent, entrypoint):\n    pass\n'
    plugins = {
        'launch_testing': (
            'import launch_testing_hooks, runpy\n'
            'def pytest_addhooks(pluginmanager):\n'
            '    pluginmanager.add_hookspecs(launch_testing_hooks)\n'
            'def pytest_pycollect_makemodule(module_path, parent):\n'
            '    runpy.run_path(str(module_path))\n'),
        'launch_ros': hooks}
    (tmp_path / 'launch_testing_hooks.py').write_text(hooks)
    for name, code in plugins.items():
        (tmp_path / f'{name}_plugin.py').write_text(code)
        info = tmp_path / f'{name}-1.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1\n')
        (info / 'entry_points.txt').write_text(f'[pytest11]\n{name} = {name}_plugin\n')
    tests = tmp_path / 'tests'
    tests.mkdir()
    (tests / 'test_one.py').write_text(
        'import pytest\npytest.importorskip("nowhere_to_be_had")\n')
    (tests / 'test_two.py').write_text('def test_two():\n    pass\n')

    def collected(*options: str) -> str:
        return subprocess.run(
            [sys.executable, '-m', 'pytest', '--collect-only', '-q', *options, str(tests)],
            env=os.environ | {'PYTHONPATH': str(tmp_path)}, cwd=tmp_path, capture_output=True,
            text=True, timeout=120).stdout

    assert 'test_two' not in collected('-p', 'no:cacheprovider')
    settings = Path(__file__).parents[1] / 'pyproject.toml'
    assert 'test_two.py::test_two' in collected('-c', str(settings))


ROSDEP = {
    'PIL': 'python3-pil', 'cv2': 'python3-opencv', 'jinja2': 'python3-jinja2',
    'matplotlib': 'python3-matplotlib', 'numpy': 'python3-numpy', 'rich': 'python3-rich',
    'scipy': 'python3-scipy', 'torch': 'python3-torch', 'yaml': 'python3-yaml',
    'hypothesis': 'python3-hypothesis', 'pytest': 'python3-pytest'}
"""Imported names whose rosdep key is another."""


def imported(folder: Path) -> set[str]:
    """Return the packages that the Python files of a folder import, at their top or within."""
    names = set()
    for file in folder.rglob('*.py'):
        if file.parent.name == 'msg':  # generated
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module or '')
    return {name.partition('.')[0] for name in names}


def test_every_import_is_declared_or_optional() -> None:
    """In package.xml by a rosdep key, or in the list of what the node does without."""
    depends = {
        entry.text for entry in ElementTree.parse(share('package.xml')).getroot()
        if entry.tag in ('depend', 'exec_depend')}
    known = {'adamtl_ros', *sys.stdlib_module_names, *OPTIONAL}
    for folder in (Path(adamtl_ros.__file__).parent, share('launch')):
        missing = {name for name in imported(folder) - known
                   if ROSDEP.get(name, name) not in depends}
        assert not missing


@pytest.mark.slow
def test_runs_on_what_rosdep_installs(tmp_path: Path) -> None:
    """The node's modules and the network on torch, with no package that has no key."""
    pytest.importorskip('rclpy')
    script = (
        'import sys\n'
        f'sys.modules.update(dict.fromkeys({[*OPTIONAL]!r}))\n'
        'import adamtl_ros.nodes.lifecycle, adamtl_ros.nodes.player, adamtl_ros.nodes.trial\n'
        'from adamtl_ros.cli import main\n'
        'sys.exit(main(sys.argv[1:]))\n')
    frame = Path(adamtl_ros.__file__).parent / 'data' / 'demo' / 'seq_a_0000.jpg'

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, '-c', script, *arguments], cwd=tmp_path, capture_output=True,
            text=True, timeout=300)

    done = run('infer', str(frame), '--out', 'results')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'results' / 'seq_a_0000.npz').is_file()
    for command, package in (('bag', 'rosbags'), ('convert', 'safetensors')):
        done = run(command, 'x')
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == (
            f'adamtl {command}: {package} is not installed: pip install {package}')
