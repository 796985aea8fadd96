"""The project's own laws, as far as its files show them; each check is tried on a planted violation."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 330
VAGUE_NAMES = {"utils", "helpers", "misc", "common"}
# In pieces, so that this file does not break the law that it keeps.
PLACES = re.compile(r"(?<![\w.])/(?:" + "|".join([r"work\b", r"root\b", r"home/\w", r"Users/\w"]) + ")")
INDEXES = re.compile("|".join([r"py" + r"pi\.org", "python" + "hosted", "index" + "-url", "find" + "-links"]))

Check = Callable[[str], Iterator[str]]


def tracked(*patterns: str) -> list[Path]:
    """The checkout's own text files."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", *patterns], capture_output=True, check=True)
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def swapped_axes(source: str) -> Iterator[str]:
    """Calls that exchange the first two axes, batch and sequence, of an array with three axes or more."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        items = [element for each in node.args for element in (each.elts if isinstance(each, ast.Tuple) else [each])]
        numbers = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, int)]
        turned = node.func.attr == "transpose" and numbers[:2] == [1, 0] and len(numbers) > 2
        if turned or (node.func.attr in {"swapaxes", "moveaxis"} and sorted(numbers[:2]) == [0, 1]):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def forbidden_calls(source: str) -> Iterator[str]:
    """Printing, running text as code and unpickling, which the library never does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "eval", "exec"}:
            yield f"line {node.lineno}: {node.func.id}()"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if {"pickle", "marshal", "shelve"} & {name.partition(".")[0] for name in names}:
                yield f"line {node.lineno}: {ast.unparse(node)}"


def long_files(source: str) -> Iterator[str]:
    """Files that nobody reads to the end."""
    lines = len(source.splitlines())
    if lines > MAX_LINES:
        yield f"{lines} lines, more than {MAX_LINES}"


def machine_words(text: str) -> Iterator[str]:
    """Folders of one machine, and package indexes, which a user's own settings name."""
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern in (PLACES, INDEXES):
            if pattern.search(line):
                yield f"line {number}: {line.strip()}"


def loose_pins(text: str) -> Iterator[str]:
    """Lines of a constraints file that are no exact version."""
    for line in text.splitlines():
        if not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.+!]+", line):
            yield line


def missing_commands(text: str) -> Iterator[str]:
    """Commands of a document that the checkout does not have."""
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z]+)\b", code):
        if target not in targets:
            yield f"make {target}"
    for script in re.findall(r"\bscripts/\w+\.py\b", code):
        if not (ROOT / script).is_file():
            yield script
    own_examples = re.findall(r"configs/attention/(\w+)\.yaml", text)
    for name in re.findall(r"\battention=(\w+)", code):
        if name not in {*zoo.attention_names(), *own_examples, "keep"}:
            yield f"attention={name}"


def canonical(package: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def violations(check: Check, *patterns: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {found}"
        for path in tracked(*patterns)
        for found in check(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(
    ("check", "patterns"),
    [
        (swapped_axes, ["zoo/*.py"]),
        (forbidden_calls, ["zoo/*.py"]),
        (long_files, ["*.py"]),
        (machine_words, []),
        (loose_pins, ["constraints.txt"]),
        (missing_commands, ["*.md"]),
    ],
)
def test_no_file_breaks_the_law(check: Check, patterns: list[str]) -> None:
    assert violations(check, *patterns) == []


@pytest.mark.parametrize(
    ("check", "violation"),
    [
        (swapped_axes, "y = x.transpose(1, 0, 2)"),
        (swapped_axes, "y = mx.transpose(x, (1, 0, 2, 3))"),
        (swapped_axes, "y = x.swapaxes(0, 1)"),
        (swapped_axes, "y = mx.moveaxis(x, 1, 0)"),
        (forbidden_calls, "print(1)"),
        (forbidden_calls, "import pickle"),
        (forbidden_calls, "from marshal import loads"),
        (forbidden_calls, "eval('1')"),
        (long_files, "\n" * (MAX_LINES + 1)),
        (machine_words, "see " + "/home/" + "ada/notes"),
        (machine_words, "--extra-index" + "-url https://example.org"),
        (loose_pins, "numpy>=2"),
        (loose_pins, "--pre"),
        (loose_pins, "mlx @ https://example.org/mlx.whl"),
        (missing_commands, "`make coffee`"),
        (missing_commands, "```\npython scripts/nothing.py\n```"),
        (missing_commands, "`attention=blockspare`"),
    ],
)
def test_every_check_sees_a_violation(check: Check, violation: str) -> None:
    assert list(check(violation)) != []


@pytest.mark.parametrize(
    ("check", "lawful"),
    [
        (swapped_axes, "y = x.transpose(0, 2, 1, 3).swapaxes(-1, -2) + w.transpose(1, 0)"),
        (forbidden_calls, "logging.info('text')\nmx.eval(x)"),
        (missing_commands, "Makes a difference: `make test`, `scripts/train.py`, and we make coffee."),
    ],
)
def test_what_is_lawful_passes(check: Check, lawful: str) -> None:
    assert list(check(lawful)) == []


def test_file_names_say_what_is_inside() -> None:
    assert [path for path in tracked("*.py") if path.stem in VAGUE_NAMES and "tests" not in path.parts] == []


def test_every_dependency_has_its_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    wanted = {re.split(r"[\[<>=; ]", requirement)[0] for requirement in [*project["dependencies"], *extras]}
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert {canonical(name) for name in wanted} - {canonical(name) for name in pinned} == set()


def test_the_readme_names_only_variants_that_exist() -> None:
    """A new variant need not be in the table: adding one touches no other file."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # What is filled in from rows has a table of its own.
    written = re.sub(r"<!-- results:(\w+) -->.*?<!-- /results:\1 -->", "", readme, flags=re.DOTALL)
    table = re.findall(r"^\| `(\w+)` \|", written, flags=re.MULTILINE)
    assert len(table) == len(set(table)) > 0
    assert set(table) - set(zoo.attention_names()) == set()


def test_a_test_lies_where_its_subject_lies() -> None:
    # Campaigns try the whole product.
    campaigns = {Path("endurance"), Path("fuzz")}
    folders = {path.parent.relative_to(ROOT / "tests") for path in tracked("tests/*/test_*.py")} - campaigns
    assert [folder for folder in sorted(folders) if not (ROOT / folder).is_dir()] == []


def test_no_test_makes_a_folder_among_the_users_runs():
    assert Path.cwd() != ROOT
    with pytest.raises(AssertionError, match="must write into its own folder"):
        (ROOT / "runs" / "made by a test").mkdir(parents=True)
