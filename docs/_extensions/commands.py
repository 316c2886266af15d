"""The directive `nnx-commands`: the command line with all its options, as its parsers know them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nnx.cli import _parser


def escaped(text: str) -> str:
    """Return a text that reStructuredText takes as it is."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield each command's name, its line of help, and its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            help_of = {each.dest: each.help or "" for each in action._choices_actions}
            for name, found in action.choices.items():
                yield name, help_of[name], found


def argument(action: argparse.Action) -> str:
    """Return how an argument is written, such as ``-o FILE, --output FILE``."""
    value = action.metavar or (action.choices and "{" + ",".join(map(str, action.choices)) + "}") or ""
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        return str(value or action.dest)
    more = f" {value}" if value and action.nargs != 0 else ""
    return ", ".join(option + more for option in action.option_strings)


def help_text(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return an argument's help with its default filled in."""
    return escaped(parser._get_formatter()._expand_help(action))


def section(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the lines about one command: usage, description, arguments in their groups, examples."""
    description = (parser.description or "").strip()
    yield from (escaped(description).splitlines() if description else [])
    yield ""
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS]
        if not actions:
            continue
        title = group.title or ""
        yield from (f".. rubric:: {escaped(title[:1].upper() + title[1:])}", "")
        if group.description:
            yield from (*escaped(group.description).splitlines(), "")
        for action in actions:
            yield f"``{argument(action)}``"
            yield f"    {help_text(parser, action) if action.help else ''}"
            yield ""
    examples = re.findall(r"^example: (.*)$", parser.epilog or "", re.MULTILINE)
    if examples:
        yield from (".. rubric:: Examples", "", ".. code-block:: sh", "")
        yield from (f"    {each}" for each in examples)
        yield ""


class Commands(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        found: list[Any] = []
        for name, line, parser in subparsers(_parser()):
            lines = list(section(parser)) if parser.description else [escaped(line), "", *section(parser)]
            title = nodes.title(text=f"nnx {name}")
            part = nodes.section("", title, ids=[f"nnx-{name}"], names=[f"nnx {name}"])
            self.state.document.note_explicit_target(part)
            self.state.nested_parse(StringList(lines, source=f"nnx {name} --help"), 0, part)
            found.append(part)
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Enter the directive."""
    app.add_directive("nnx-commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
