# Copyright 2026 adamtl_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""
Write docs/commands.md, the reference of the commands, from what their parsers say.

    python test/commands_page.py
"""

from argparse import Action
from argparse import ArgumentParser
from argparse import SUPPRESS
from collections.abc import Callable
from pathlib import Path
import re
import textwrap
from unittest.mock import patch

from adamtl_ros import cli
from adamtl_ros.files import whole
from adamtl_ros.nodes import player

PAGE = Path(__file__).parents[1] / 'docs/commands.md'

HEAD = """# Commands

What each command takes; `--help` says the same.
It is written by `python test/commands_page.py`.
What the exit codes mean is in [operating.md](operating.md#faults).
"""


class _FoundError(Exception):
    """Carries the parser, before anything is parsed."""


def parser_of(command: Callable[[], object]) -> ArgumentParser:
    """Return the parser that a command makes; the command itself does not run."""
    def found(self: ArgumentParser, *_: object) -> None:
        raise _FoundError(self)

    with patch.object(ArgumentParser, 'parse_known_args', found):
        try:
            command()
        except _FoundError as caught:
            return caught.args[0]
    raise ValueError('the command parses nothing')


def parsers() -> dict[str, ArgumentParser]:
    """Return the parsers of all commands by their names."""
    found = {f'adamtl {name}': parser_of(cli._command([name])) for name in cli.COMMANDS}
    return found | {'adamtl_player': parser_of(lambda: player.parse([]))}


def row(action: Action) -> list[str]:
    """Return the cells of an argument: name, default, what it is for."""
    told = ' '.join((action.help or '').split())
    said = re.search(r' ?\(default: (.*?)\)', told)
    default = said[1] if said else str(
        '' if action.nargs == 0 or action.default in (None, '', SUPPRESS, []) else action.default)
    if said:
        told = told.replace(said[0], '')
    name = ', '.join(action.option_strings)
    value = '|'.join(map(str, action.choices)) if action.choices else (
        action.metavar or action.dest.upper())
    if not name:
        name = value + (' ...' if action.nargs in ('+', '*') else '')
    elif action.nargs != 0:
        name += f' {value}' + (f' [{value} ...]' if action.nargs == '+' else '')
    if action.required and action.option_strings:
        default = 'required'
    return [f'`{name}`', default % vars(action), told % vars(action)]


def sentences(text: str) -> str:
    """Return a description, a sentence a line, of at most 100 characters."""
    paragraphs = []
    for paragraph in text.strip().split('\n\n'):
        lines = re.split(r'(?<=[.!?]) +(?=[A-Z0-9])', ' '.join(paragraph.split()))
        paragraphs.append('\n'.join(
            piece for line in lines for piece in textwrap.wrap(
                line, 100, break_long_words=False, break_on_hyphens=False)))
    return '\n\n'.join(paragraphs)


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, parser in parsers().items():
        rows = [row(each) for each in parser._actions if '--help' not in each.option_strings]
        table = ['| argument | default | what it is |', '|---|---|---|'] + [
            '| ' + ' | '.join(cell.replace('|', r'\|') for cell in each) + ' |' for each in rows]
        parts.append(f'\n## {name}\n\n{sentences(parser.description)}\n\n' + '\n'.join(table)
                     + '\n')
    return ''.join(parts)


if __name__ == '__main__':
    with whole(PAGE) as aside:
        aside.write_text(page(), encoding='utf-8')
