# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The pages: their lines, the links between them, and the commands that they name."""

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import adamtl_ros
from adamtl_ros import cli
from adamtl_ros.nodes import player
from adamtl_ros.nodes.parameters import PARAMETERS
from adamtl_ros.sources import DEMO
import commands_page

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page for page in (*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('.github/*.md')))
OWN = re.compile(r'(?:^|[\s`])(adamtl(?:_player)? [^`]*)')
SENTENCE_ENDS = re.compile(r'(?<![.\d])[.!?]["»)*]* (?=["«(*\[]*[A-Z])')

pytestmark = pytest.mark.skipif(not PAGES, reason='the documentation is not beside the tests')


def parts(page: Path) -> Iterator[tuple[str, str]]:
    """Yield ('prose' or 'code', line); a line of code has those that continue it."""
    fence, code = False, ''
    before = ''
    for line in page.read_text(encoding='utf-8').splitlines():
        if line.startswith('```'):
            fence = not fence
        elif fence or line.startswith('    ') and (code or not before.strip()):
            code = code.removesuffix('\\') + line.strip()
            if not code.endswith('\\'):
                yield 'code', code
                code = ''
        else:
            yield 'prose', line
        before = '' if line.startswith('    ') and not fence else line


def pieces(page: Path) -> Iterator[tuple[bool, str]]:
    """Yield what stands on a page as code: whether on a line of its own, and the text."""
    for kind, line in parts(page):
        yield from [(True, line)] if kind == 'code' else (
            (False, piece) for piece in re.findall('`([^`]+)`', line))


def commands() -> list[tuple[bool, str]]:
    """Return every command line of this package that stands on a page, once."""
    found = {}
    for page in PAGES:
        for whole, piece in pieces(page):
            named = OWN.search(piece)
            if named and '...' not in piece:
                found[named[1].partition(' # ')[0].strip(' &')] = whole
    return [(whole, command) for command, whole in found.items()]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_a_sentence_a_line_of_at_most_100_characters(page):
    for kind, line in parts(page):
        if kind == 'prose' and not line.startswith(('|', '<svg')):
            assert len(line) <= 100 or ' ' not in line.strip(), line
            assert not SENTENCE_ENDS.search(re.sub('`[^`]*`', '``', line)), line


def anchors(page: Path) -> set[str]:
    """Return the names that its headings have as targets of links."""
    return {
        re.sub(r'[^\w\- ]', '', line.lstrip('# ').lower()).replace(' ', '-')
        for kind, line in parts(page) if kind == 'prose' and line.startswith('#')}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', page.read_text(encoding='utf-8')):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


class _ParsedError(Exception):
    """The arguments of a command were read to the end."""


@pytest.mark.parametrize(('whole', 'command'), commands())
def test_commands_have_the_options_that_pages_give_them(whole, command, monkeypatch):
    program, *arguments = shlex.split(command)
    parse = ArgumentParser.parse_known_args

    def read(self, args=None, namespace=None):
        for action in self._actions:
            action.required &= whole  # one that is told in passing may leave things out
        options, rest = parse(self, args, namespace)
        assert not rest, f'{self.prog} does not know {rest}'
        # That of a subcommand is the first to be done, within the one that it belongs to.
        raise _ParsedError

    monkeypatch.setattr(ArgumentParser, 'parse_known_args', read)
    with pytest.raises(_ParsedError):
        if program == 'adamtl_player':
            player.parse(arguments)
        else:
            cli._command(arguments)()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_parameters_and_files_that_pages_name_are_there(page):
    for _, piece in pieces(page):
        if re.match(r'ros2 (run|launch) (?!adamtl_ros )', piece):
            continue  # those of a driver are its own
        named = re.findall(r' -p ([\w.]+):=', piece)
        named += re.findall(r'ros2 param (?:set|get|describe) /adamtl ([\w.]+)', piece)
        if 'glasses.launch.py' in piece:
            launch = (ROOT / 'launch/glasses.launch.py').read_text()
            named += [name for name in re.findall(r' (\w+):=', piece)
                      if f"'{name}'" not in launch]
        for name in named:
            assert name in PARAMETERS, piece
        for path in re.findall(r'(?:^|\s)((?:test|config|launch|\.ci)/[\w./]+)', piece):
            assert (ROOT / path).exists(), piece


def test_all_commands_are_told_with_what_they_say_themselves():
    page = (ROOT / 'docs/interface.md').read_text(encoding='utf-8')
    told = page.partition('## Commands\n')[2].partition('\n## ')[0]
    (commands,) = cli.build()._subparsers._group_actions
    rows = [f'| `adamtl {each.dest}` | {each.help} |' for each in commands._choices_actions]
    assert [line for line in told.splitlines() if line.startswith('| `')] == rows


@pytest.mark.slow
def test_the_reference_of_commands_is_of_these_parsers():
    told = commands_page.page()
    assert (ROOT / 'docs/commands.md').read_text(encoding='utf-8') == told, (
        'run  python test/commands_page.py')
    for name, parser in commands_page.parsers().items():
        for action in parser._actions:
            assert action.help, f'{name} does not say what {action.dest} is'


def test_an_argument_is_told_with_what_its_parser_has():
    parser = ArgumentParser()
    for each in (
            parser.add_argument('files', nargs='+', help='pictures'),
            parser.add_argument('--size', default=(4, 3), help='in pixels (default: 4x3), small'),
            parser.add_argument('--mode', choices=('a', 'b'), default='a', help='what it does'),
            parser.add_argument('--rate', type=int, default=7, metavar='N', help='of %(dest)s'),
            parser.add_argument('--out', required=True, metavar='DIR', help='folder'),
            parser.add_argument('--fast', action='store_true', help='%(default)s or not')):
        told = commands_page.row(each)
        assert told == {
            'files': ['`FILES ...`', '', 'pictures'],
            'size': ['`--size SIZE`', '4x3', 'in pixels, small'],
            'mode': ['`--mode a|b`', 'a', 'what it does'],
            'rate': ['`--rate N`', '7', 'of rate'],
            'out': ['`--out DIR`', 'required', 'folder'],
            'fast': ['`--fast`', '', 'False or not']}[each.dest]


@pytest.mark.slow
def test_the_reference_of_modules_builds_without_a_warning(tmp_path):
    pytest.importorskip('pdoc', reason='pdoc is not installed: pip install pdoc, or make docs')
    pytest.importorskip('rclpy', reason='the modules of the node need rclpy')
    (recipe,) = re.findall(
        r'\n\t\$\(VENV\)/bin/python (.*) -m pdoc -o build/api (.*)\n',
        (ROOT / 'Makefile').read_text(encoding='utf-8'))
    done = subprocess.run(
        [sys.executable, *recipe[0].split(), '-m', 'pdoc', '--no-show-source', '-o',
         str(tmp_path), *shlex.split(recipe[1])],
        capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, '')
    package = Path(adamtl_ros.__file__).parent
    for module in package.rglob('*.py'):
        name = module.relative_to(package).with_suffix('')
        if 'msg' not in name.parts and name.name != '__init__':
            assert (tmp_path / 'adamtl_ros' / name).with_suffix('.html').is_file(), name
    page = (tmp_path / 'adamtl_ros/runtime/engine.html').read_text(encoding='utf-8')
    assert 'id="Engine.infer"' in page


def test_the_example_in_python_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / 'docs/start.md').read_text(encoding='utf-8')
    _, block, *_ = page.split('```python\n')
    shutil.copy(DEMO / 'seq_a_0005.jpg', tmp_path / 'photo.jpg')
    monkeypatch.chdir(tmp_path)
    exec(block.partition('```')[0], {})
    depth, achieved = map(float, capsys.readouterr().out.split())
    assert 0.3 < depth < 10 and 0 < achieved <= 0.6
