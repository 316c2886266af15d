"""The platforms and tests of wheels: lists that must agree."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def pyproject():
    tomllib = pytest.importorskip("tomllib")  # part of Python from 3.11 on
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def versions_of(classifiers):
    """Return the minor versions of Python 3 among classifiers."""
    found = (re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", each) for each in classifiers)
    return sorted(int(match[1]) for match in found if match)


def test_wheels_are_built_for_the_pythons_of_the_classifiers(pyproject):
    versions = versions_of(pyproject["project"]["classifiers"])
    built = pyproject["tool"]["cibuildwheel"]["build"]
    assert [int(match[1]) for each in built if (match := re.fullmatch(r"cp3(\d+)-\*", each))] == versions
    assert versions == list(range(versions[0], versions[-1] + 1))
    assert pyproject["project"]["requires-python"] == f">=3.{versions[0]}"
    assert pyproject["tool"]["ruff"]["target-version"] == f"py3{versions[0]}"
    assert pyproject["tool"]["mypy"]["python_version"] == f"3.{versions[0]}"
    assert f"cp3{versions[-1]}t-*" in built  # free-threaded, as a classifier says
    assert any("Free Threading" in each for each in pyproject["project"]["classifiers"])


def test_the_tests_of_a_wheel_are_there(pyproject):
    settings = pyproject["tool"]["cibuildwheel"]
    commands = [*settings["test-command"], settings["pyodide"]["test-command"]]
    assert "--backends two" in settings["test-command"][1]  # the variants that the building machine does not prefer
    files = [word for each in commands for word in shlex.split(each) if word.endswith(".py")]
    assert len(files) >= 2
    for file in files:
        assert (ROOT / file).is_file(), file
        assert any(fnmatch.fnmatch(file, f"{source}*") for source in settings["test-sources"])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_keep_no_credentials(workflow):
    text = workflow.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    for action, comment in used:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+(\.\d+)*", comment), f"{action}: its version is missing beside it"
    checkouts = sum(action.startswith("actions/checkout@") for action, _ in used)
    assert text.count("persist-credentials: false") == checkouts
    assert re.search(r"^permissions: ?(\{\}|\n  contents: read$)", text, re.MULTILINE), (
        "a workflow starts with no rights"
    )


def test_only_the_job_that_publishes_may_sign():
    jobs = (ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8").split("\n  publish:\n")
    assert len(jobs) == 2
    assert ": write" not in jobs[0]
    assert re.findall(r"[\w-]+: write", jobs[1]) == ["id-token: write"]
    assert "needs: [wheels, sdist]" in jobs[1]
    assert "environment: pypi" in jobs[1]


def test_each_test_file_that_a_workflow_names_is_there():
    named = {
        name for workflow in WORKFLOWS for name in re.findall(r"tests/\w+\.py", workflow.read_text(encoding="utf-8"))
    }
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).is_file()]
