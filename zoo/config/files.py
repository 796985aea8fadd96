"""The one door for structured files from outside: read with limits, parsed strictly, and written whole or not at all.

A file that a user, another program or a stranger wrote can be anything: a pipe that never answers, a gigabyte of
brackets, half of what it was. So a file is opened only if it is regular, read only up to a limit, and every fault is
one line that names the file. What the content has to be is then for `from_mapping` to say.
"""

import contextlib
import errno
import functools
import json
import math
import os
import select
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from zoo.config.errors import UserError, shortened
from zoo.config.strict import from_mapping

ConfigT = TypeVar("ConfigT")

# No file that people or programs write here comes near: the largest, a tokenizer of 250,000 pieces, has 40 MB.
LIMIT_BYTES = 256 * 2**20
# Python's own parsers give up near a thousand; nothing that is meant goes deeper than a dozen.
LIMIT_DEPTH = 64
# Of YAML, aliases counted as often as they are used: ten lines can stand for a billion nodes.
_LIMIT_NODES = 100_000


def typed_path(text: str, *, what: str) -> Path:
    """The path that a user typed, a leading `~` or `~name` replaced by that home folder; it need not exist.

    Raises:
        UserError: If there is no such user, or no file can have that path or be looked for there.
    """
    try:
        # A path forgets the ./ that it was typed with.
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        path.stat()
    except RuntimeError:
        raise UserError(
            f"{what} must begin with a home folder that exists, or with ./~; got {shortened(text)}"
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        # Whether it has to exist, or can be made, is for whoever asked.
        return path
    except (OSError, ValueError) as error:
        raise UserError(
            f"{what} must be a path that can be looked up; got {shortened(text)} ({_reason(error)})"
        ) from None
    return path


def open_regular(path: Path, *, what: str) -> BufferedReader:
    """Opens a regular file for reading; a pipe, a socket or a device is refused and never waited for.

    Args:
        path: The file; links are followed.
        what: Whose file it is, for messages (for example `checkpoint`).

    Raises:
        UserError: If it is missing, is no regular file or cannot be read; names it.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to waits for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UserError(f"{what}: {path} must exist; it is missing") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what}: {path} must be readable; {_reason(error)}") from None
    # The kernel's own log calls itself regular, and keeps a reader waiting all the same.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not poll.poll(0):
        os.close(descriptor)
        raise UserError(f"{what}: {path} must be a regular file; it is a folder, a pipe or a device")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, what: str, limit: int = LIMIT_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: As `open_regular`, and if it has more than `limit` bytes.
    """
    with open_regular(path, what=what) as stream:
        try:
            content = stream.read(limit + 1)
        except OSError as error:
            raise UserError(f"{what}: {path} must be readable; {_reason(error)}") from None
    if len(content) > limit:
        raise UserError(f"{what}: {path} must have at most {limit} bytes; it has more")
    return content


def read_text(path: Path, *, what: str, limit: int = LIMIT_BYTES) -> str:
    """The content of a regular file of UTF-8.

    Raises:
        UserError: As `read_bytes`, and if it is not UTF-8.
    """
    try:
        return read_bytes(path, what=what, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{what}: {path} must be UTF-8; {error.reason} at byte {error.start}") from None


def read_json(path: Path, *, what: str, limit: int = LIMIT_BYTES) -> Any:
    """The value that a JSON file holds.

    Raises:
        UserError: As `read_text`, and on anything that `parse_json` refuses.
    """
    return parse_json(read_text(path, what=what, limit=limit), where=f"{what}: {path}")


def parse_json(text: str, *, where: str) -> Any:
    """The value of a JSON text, by the letter of the standard: no NaN, no key twice, no depth without end.

    Args:
        text: The text.
        where: What to call it in messages (for example `checkpoint: model/config.json`).

    Raises:
        UserError: If it is no JSON, or nested deeper than `LIMIT_DEPTH`.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise UserError(f"{where} must hold finite numbers; got {name}")

    def finite(digits: str) -> float:
        number = float(digits)
        # 1e999 is JSON, and no number of ours.
        return number if math.isfinite(number) else refuse_constant(shortened(digits))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{where} must name each key once; got {twice!r} twice")
        return mapping

    try:
        value = json.loads(text, parse_constant=refuse_constant, parse_float=finite, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} must be JSON; {error.msg} at line {error.lineno}, column {error.colno}") from None
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{where} must be nested at most {LIMIT_DEPTH} deep; it is deeper") from None
    except ValueError as error:
        # A number of thousands of digits.
        raise UserError(f"{where} must be JSON; {error}") from None
    if not _within_depth(value, LIMIT_DEPTH):
        raise UserError(f"{where} must be nested at most {LIMIT_DEPTH} deep; it is deeper")
    return value


def read_json_mapping(path: Path, *, what: str, limit: int = LIMIT_BYTES) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        UserError: As `read_json`, and if it is no object.
    """
    value = read_json(path, what=what, limit=limit)
    if not isinstance(value, dict):
        raise UserError(f"{what}: {path} must be a JSON object; got {type(value).__name__}")
    return value


def read_json_as(cls: type[ConfigT], path: Path, *, what: str, limit: int = LIMIT_BYTES) -> ConfigT:
    """What a JSON file holds, as a dataclass; see `from_mapping`.

    Raises:
        UserError: As `read_json_mapping`, and on a missing, unknown or mistyped field; names file and field.
    """
    return from_mapping(cls, read_json_mapping(path, what=what, limit=limit), path=f"{what}: {path}")


def read_yaml(path: Path, *, what: str, limit: int = LIMIT_BYTES) -> Any:
    """The value that a YAML file holds.

    Raises:
        UserError: As `read_text`, and on anything that `parse_yaml` refuses.
    """
    return parse_yaml(read_text(path, what=what, limit=limit), where=f"{what}: {path}")


def parse_yaml(text: str, *, where: str) -> Any:
    """The value of a YAML text of plain scalars, lists and mappings; builds no object of any other kind.

    Raises:
        UserError: If it is no such YAML, or its aliases stand for more than anybody means.
    """
    try:
        node, num_nodes = _composed(text)
        if num_nodes <= _LIMIT_NODES:
            # Not parsed a second time: libyaml's parser overruns the stack where nesting has no end.
            return None if node is None else yaml.SafeLoader("").construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{where} must be YAML; {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{where} must be nested at most {LIMIT_DEPTH} deep; it is deeper") from None
    except (ValueError, TypeError, OverflowError) as error:
        # A date that no calendar has, a number of thousands of digits, a key that is a list.
        raise UserError(f"{where} must be YAML; {error}") from None
    raise UserError(f"{where} must stand for at most {_LIMIT_NODES} values; its aliases stand for more")


def read_yaml_mapping(path: Path, *, what: str, limit: int = LIMIT_BYTES) -> dict[str, Any]:
    """The mapping that a YAML file holds; keys are texts.

    Raises:
        UserError: As `read_yaml`, and if it is no mapping, or one with other keys.
    """
    value = read_yaml(path, what=what, limit=limit)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{what}: {path} must be a mapping whose keys are texts; got {type(value).__name__}")
    return dict(value)


def replace_file(path: Path, content: bytes | str) -> None:
    """Writes a file beside its place, forces it to the disk and renames it: a kill leaves the old one whole.

    Raises:
        OSError: If it cannot be written; nothing stays beside it then.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Forces one file, or a folder's list of names, to the disk.

    Raises:
        OSError: If it cannot be; a folder on a file system that syncs no folders counts as done.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (error.errno == errno.EINVAL and path.is_dir()):
            raise
    finally:
        os.close(descriptor)


def inside(folder: Path, name: str, *, what: str, linked: Path | None = None) -> Path:
    """The path of a file that another file names, which must lie in that file's folder.

    Args:
        folder: The folder.
        name: A relative path, with `/` between its parts.
        what: Whose file it is, for messages.
        linked: Another folder that links may lead to.

    Raises:
        UserError: If the path is absolute, has a part `..`, or leads out of the folder through a link.
    """
    parts = name.split("/")
    if not name or "\0" in name or name.startswith("/") or not all(part not in ("", ".", "..") for part in parts):
        raise UserError(f"{what}: {folder} must name files inside itself; got {shortened(name)}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise UserError(f"{what}: {folder} must name files that there can be; got {shortened(name)}") from None
    path = folder.joinpath(*parts)
    # Unlike Path.resolve, realpath gives links that lead in a circle back as they are.
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in (folder, linked) if root is not None):
        raise UserError(f"{what}: {path} must lie inside its folder; it is a link out of it")
    return path


def _within_depth(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested at most so deep; level by level, for the stack is what is in danger."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(item, (dict, list))
        ]
        if not level:
            return True
    return False


@functools.lru_cache(maxsize=64)  # PyYAML's parser is slow, and the few YAMLs of variants are read again and again.
def _composed(text: str) -> tuple[yaml.Node | None, int]:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return node, 0 if node is None else _num_nodes(node, {}, LIMIT_DEPTH)


def _num_nodes(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Nodes that a node stands for, aliases counted each time."""
    if id(node) in known:
        return known[id(node)]
    if depth == 0:
        raise RecursionError
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    total = 1 + sum(_num_nodes(child, known, depth - 1) for child in children)
    known[id(node)] = total
    return total


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
