# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The labels of classes, with the two messages of vision_msgs built here where it is missing."""

from hashlib import sha256
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory
import venv

import pytest

from adamtl_ros.paths import cache

pytest.importorskip('rclpy', reason='the ROS wheels or a ROS installation are needed')

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

# As published by vision_msgs 4, the name of the package included.
MESSAGES = {
    'VisionClass': 'uint16 class_id\nstring class_name\n',
    'LabelInfo': 'std_msgs/Header header\nvision_msgs/VisionClass[] class_map\n'
                 'float32 threshold\n'}
MANIFEST = """<package format="3">
  <name>vision_msgs</name><version>4.1.1</version><description>Two of its messages.</description>
  <maintainer email="none@example.org">none</maintainer><license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <buildtool_depend>rosidl_default_generators</buildtool_depend><depend>std_msgs</depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""


def recipe() -> str:
    """Return the CMakeLists.txt of this package up to its own modules, for the two messages."""
    own = (ROOT / 'CMakeLists.txt').read_text().partition('# After the generated package')[0]
    return re.sub(r'(\s+msg/\w+\.msg)+', ''.join(
        f'\n  msg/{name}.msg' for name in MESSAGES), own.replace(
            'project(adamtl_ros)', 'project(vision_msgs)')) + 'ament_package()\n'


def kept() -> Path:
    """Return where what was built from the same by the same is kept: it takes most of a minute."""
    made_of = (recipe(), MANIFEST, MESSAGES, (ROOT / 'constraints.txt').read_text(),
               (ROOT / 'build_backend.py').read_text(), sys.version, platform.machine())
    return cache() / 'test' / f'vision_msgs-{sha256(repr(made_of).encode()).hexdigest()[:16]}'


def build(folder: Path) -> Path:
    """Generate the messages with the wheels that this package is built with; return the prefix."""
    sys.path.insert(0, str(ROOT))
    from build_backend import _ROS_WHEELS
    from build_backend import _TOOLS

    source, environment, prefix = folder / 'source', folder / 'environment', folder / 'prefix'
    (source / 'msg').mkdir(parents=True)
    (source / 'CMakeLists.txt').write_text(recipe())
    (source / 'package.xml').write_text(MANIFEST)
    for name, text in MESSAGES.items():
        (source / 'msg' / f'{name}.msg').write_text(text)
    venv.create(environment, with_pip=True)
    python = environment / 'bin' / 'python'
    clean = {name: value for name, value in os.environ.items()
             if name not in ('LD_LIBRARY_PATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'PYTHONPATH')}
    fetched = subprocess.run(
        [python, '-m', 'pip', 'install', '-q', '-c', ROOT / 'constraints.txt', 'setuptools<80',
         *_ROS_WHEELS, *_TOOLS], env=clean, capture_output=True, text=True, timeout=280)
    if fetched.returncode:
        pytest.skip(f'the wheels to generate messages with are not to be had: {fetched.stderr}')
    site = next(environment.glob('lib/python3*/site-packages'))
    clean |= {
        'AMENT_PREFIX_PATH': str(environment), 'CMAKE_PREFIX_PATH': str(environment),
        'PYTHONPATH': str(site),
        'PATH': f'{environment / "bin"}{os.pathsep}{os.environ["PATH"]}'}
    for command in (
            ['cmake', '-S', source, '-B', folder / 'tree', '-G', 'Ninja', '-DBUILD_TESTING=OFF',
             '-DCMAKE_BUILD_TYPE=Debug', f'-DPython3_EXECUTABLE={python}',
             f'-DCMAKE_INSTALL_PREFIX={prefix}'],
            ['cmake', '--build', folder / 'tree'], ['cmake', '--install', folder / 'tree']):
        subprocess.run(command, env=clean, check=True, capture_output=True, timeout=280)
    return prefix


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """Return variables under which vision_msgs can be imported."""
    if find_spec('vision_msgs') is not None:
        return dict(os.environ)
    if not shutil.which('g++'):
        pytest.skip('g++ is needed to build the messages')
    prefix = kept()
    if not prefix.is_dir():
        built = build(tmp_path_factory.mktemp('vision_msgs'))
        try:
            prefix.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=prefix.parent) as aside:
                shutil.copytree(built, Path(aside) / 'prefix')
                (Path(aside) / 'prefix').rename(prefix)
        except OSError:  # no room, or somebody was faster
            prefix = built
    site = next(prefix.rglob('vision_msgs/__init__.py')).parents[1]
    return dict(os.environ, PYTHONPATH=str(site))


def test_the_node_says_its_labels(environment):
    """Run the test of them, which the others leave out where vision_msgs is missing."""
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
         'test/test_outputs.py::test_class_names_are_latched'],
        cwd=ROOT, env=dict(environment, PYTHONSAFEPATH='1'), capture_output=True, text=True,
        timeout=280)
    assert done.returncode == 0 and '1 passed' in done.stdout, done.stdout + done.stderr
