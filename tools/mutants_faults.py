"""The faults that can be seeded into src/nnx: places, the operators that fit there, and a sample of both.

The operators are Cosmic Ray's, without those whose faults raise an error at once in nearly any test (``+`` replaced by
``<<``) and those that no test can find (``is`` replaced by ``==`` where None is compared). One operator is added: it
removes a statement that is a call, a raise, or an assignment to an attribute or an element.
"""

from __future__ import annotations

import ast
import difflib
import random
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

SOURCE = Path(__file__).resolve().parents[1] / "src"
POINTLESS = re.compile(
    r"_(Bit|LShift|RShift|Pow|Mod|Invert|UAdd)|_(Is|IsNot)$|_(Is|IsNot)_|Variable|Exception|Delete_Not|USub_Not"
)
LEAVE_OUT = "LeaveOut"


@cache
def operators() -> dict[str, Operator]:
    """Return Cosmic Ray's operators by name."""
    names = [name for name in operator_names() if not POINTLESS.search(name)]
    names += ["core/ReplaceComparisonOperator_Is_IsNot", "core/ReplaceComparisonOperator_IsNot_Is"]
    return {name.removeprefix("core/"): get_operator(name)() for name in sorted(names)}


def ignored(tree: ast.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the ranges of annotations and of imports for type checkers, where a fault changes nothing."""
    found = []
    for node in ast.walk(tree):
        parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            parts.append(node)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in node.bases):
            parts.append(node)
        for part in filter(None, parts):
            found.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return found


def removable(tree: ast.Module) -> list[ast.stmt]:
    """Return the statements that can be removed with all names still defined."""

    def fits(node: ast.AST) -> bool:
        if isinstance(node, ast.Assign):
            return not any(isinstance(target, ast.Name | ast.Tuple) for target in node.targets)
        return isinstance(node, ast.AugAssign | ast.Raise) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        )

    return [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and fits(node)]


def places(source: str) -> dict[tuple[int, int, str], list[tuple[str, int]]]:
    """Return the possible faults of a file: line, operator, and the index among the faults of this operator."""
    tree = ast.parse(source)
    skip, found, count = ignored(tree), defaultdict(list), Counter()
    for node in ast_nodes(get_ast(source)):
        for name, operator in operators().items():
            for start, _ in operator.mutation_positions(node):
                if not any(first <= start < last for first, last in skip):
                    found[(*start, "")].append((name, count[name]))
                count[name] += 1
    for number, node in enumerate(removable(tree)):
        if not any(first <= (node.lineno, node.col_offset) < last for first, last in skip):
            found[node.lineno, node.col_offset, LEAVE_OUT].append((LEAVE_OUT, number))
    return found


def mutate(source: str, operator: str, occurrence: int) -> str:
    """Return a file's text with a fault."""
    if operator != LEAVE_OUT:
        return mutate_code(source, operators()[operator], occurrence)
    node = removable(ast.parse(source))[occurrence]
    lines = source.splitlines(keepends=True)
    lines[node.lineno - 1 : node.end_lineno] = [lines[node.lineno - 1][: node.col_offset] + "pass\n"]
    return "".join(lines)


def sample(size: int, seed: int, only: str) -> list[dict]:
    """Draw faults from all files, in proportion to their numbers of places, with at least one from each file."""
    texts = {str(path.relative_to(SOURCE)): path.read_text() for path in sorted(SOURCE.rglob("nnx/**/*.py"))}
    of_files = {file: places(text) for file, text in texts.items()}
    total = sum(map(len, of_files.values()))
    drawn = []
    for file, found in of_files.items():
        draw = random.Random(f"{seed} {file}")  # it does not change when other files do
        n_drawn = min(len(found), max(1, round(size * len(found) / total)))
        for place in draw.sample(sorted(found), n_drawn if file.startswith(only) else 0):
            operator, occurrence = draw.choice(found[place])
            changed = mutate(texts[file], operator, occurrence)
            if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(texts[file])):
                continue  # 1e150 + 1, say
            diff = [line for line in difflib.ndiff(texts[file].splitlines(), changed.splitlines()) if line[0] in "-+"]
            drawn.append({"file": file, "line": place[0], "operator": operator, "occurrence": occurrence, "diff": diff})
    random.Random(seed).shuffle(drawn)  # so that a stopped run has judged a fair sample
    return drawn
