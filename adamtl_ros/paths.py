# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the package's shared files (config, launch, msg, package.xml) are, and names of files."""

from importlib import metadata
import os
from pathlib import Path
import re
import sys
from xml.etree import ElementTree


def share(*parts: str) -> Path:
    """
    Path of a shared file or folder, such as ``share('config', 'glasses.yaml')``.

    Looked for in the source tree that this module is in (an editable install), in the prefix it
    is installed in, in that of the interpreter, and in those of AMENT_PREFIX_PATH, in this order.

    :raises FileNotFoundError: naming the file and the places, if none of them has it
    """
    package = Path(__file__).parent
    prefixes = [*package.parents[3:5], Path(sys.prefix)]
    prefixes += [Path(p) for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    roots = [prefix / 'share' / 'adamtl_ros' for prefix in dict.fromkeys(prefixes)]
    if (package.parent / 'package.xml').is_file():
        roots.insert(0, package.parent)
    for root in roots:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    places = ', '.join(map(str, roots))
    raise FileNotFoundError(
        f'{"/".join(parts) or "the share folder"} of adamtl_ros was not found in {places}: '
        'install the package again, or source the workspace it was built in')


def cache() -> Path:
    """
    Return the folder for what can be computed anew: $ADAMTL_CACHE, else the user's cache.

    For a user without a home, as in containers, one that cannot be: nothing is kept.
    """
    if os.environ.get('ADAMTL_CACHE'):
        return Path(os.environ['ADAMTL_CACHE'])
    try:
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'adamtl_ros')
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        return Path(os.devnull, 'adamtl_ros')


def version() -> str:
    """Return the version of the installed package."""
    try:
        return metadata.version('adamtl_ros')
    except metadata.PackageNotFoundError:  # built by colcon, which leaves no Python metadata
        return ElementTree.parse(share('package.xml')).findtext('version') or 'unknown'


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts names the way people count: frame2 before frame10."""
    parts = re.split(r'(\d+)', path.name.lower())
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in parts], path.name
