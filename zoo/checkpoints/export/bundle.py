"""The `model_file` of an exported folder: the very modules that compute the model here, in one file of Python.

What belongs into it is found by following imports, from `zoo.models.mlx_lm_model` and from the mechanisms that the
model uses. The file makes them importable under a name of their own, so that it needs neither this project nor a folder
to write to, and does not meet another version of either: the name holds a digest of the sources.
"""

import ast
import functools
import hashlib
import importlib.util
import re
import sys
from pathlib import Path

from zoo.attention.registry import external_module, mechanism
from zoo.config import UserError, to_mapping
from zoo.config.errors import shortened
from zoo.config.files import read_text
from zoo.models import ModelConfig

_ROOT = Path(__file__).resolve().parents[2]
_OURS = _ROOT.name
_START = f"{_OURS}.models.mlx_lm_model"
_VARIANTS = f"{_OURS}.attention.variants"
# What every machine that runs mlx-lm has.
_THERE = frozenset({"mlx", "mlx_lm", "numpy", "yaml"})
_LOADER = Path(__file__).with_name("model_file.txt")


def bundle(config: ModelConfig) -> str:
    """The text of the `model_file` for models of this config.

    Raises:
        UserError: If a mechanism of another package needs more than one file and what every machine has.
    """
    sources = _sources(config)
    digest = hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()
    package = f"attention_zoo_{digest[:16]}"
    entries = [f"    {name!r}: {_literal(_renamed(text, package))}," for name, text in sorted(sources.items())]
    loader = read_text(_LOADER, what="model_file")
    return loader.replace("PACKAGE_NAME", package).replace("    # SOURCES\n", "\n".join(entries) + "\n")


def _sources(config: ModelConfig) -> dict[str, str]:
    """The files by their path below our package."""
    found = {"__init__.py": ""}
    ahead = [_START]
    for name in _mechanisms(config):
        module = external_module(name)
        if module is None:
            ahead.append(f"{_VARIANTS}.{name}")
        else:
            text = _external_source(name, *module)
            found[f"attention/variants/{name}.py"] = text
            ahead += [_VARIANTS, *(each for each, _ in _imports(text))]
    while ahead:
        module_name = ahead.pop()
        path = _file_of(module_name)
        # An import of a name from a module looks like one of a module.
        if path is None or (key := path.relative_to(_ROOT).as_posix()) in found:
            continue
        found[key] = path.read_text(encoding="utf-8")
        parts = module_name.split(".")
        ahead += [".".join(parts[:count]) for count in range(1, len(parts))]
        ahead += [each for each, _ in _imports(found[key])]
    return found


def _mechanisms(config: ModelConfig) -> set[str]:
    """All that the model's variants name, those that one may cross to included."""
    names = {variant.mechanism for variant in config.attention.variants()}
    for variant in config.attention.variants():
        for value in to_mapping(variant.parameters).values():
            texts = value if isinstance(value, list) else [value]
            names |= {each for each in texts if isinstance(each, str) and _is_mechanism(each)}
    return names


def _is_mechanism(name: str) -> bool:
    try:
        mechanism(name)
    except UserError:
        return False
    return True


def _file_of(module: str) -> Path | None:
    """The file of one of our modules."""
    package, *parts = module.split(".")
    if package != _OURS or not parts:
        return None
    path = _ROOT.joinpath(*parts)
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file()), None)


@functools.cache
def _imports(text: str) -> tuple[tuple[str, int], ...]:
    """What a module imports, names from modules included, each with its line."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(each.name, node.lineno) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [(name, node.lineno) for name in (module, *(f"{module}.{each.name}" for each in node.names))]
    return tuple(found)


def _external_source(name: str, module: str, attribute: str) -> str:
    """The one file of a mechanism of another package."""
    what = f"attention {name!r} must be one file that needs nothing but mlx and numpy, to leave with a model"
    spec = importlib.util.find_spec(module)
    origin = None if spec is None else spec.origin
    if origin is None or not origin.endswith(".py"):
        raise UserError(f"{what}; {shortened(module)} has no source")
    text = read_text(Path(origin), what=f"attention {name!r}")
    known = {_OURS, *_THERE, *sys.stdlib_module_names}
    for imported, _ in _imports(text):
        if imported.partition(".")[0] not in known:
            raise UserError(f"{what}; {shortened(module)} imports {shortened(imported)}")
    return f"{text}\nMECHANISM = {attribute}\n" if attribute else text


def _renamed(text: str, package: str) -> str:
    """A source whose imports of this project's are of the package in the file."""
    lines = text.splitlines(keepends=True)
    for number in {line - 1 for name, line in _imports(text) if name.partition(".")[0] == _OURS}:
        lines[number] = re.sub(rf"\b(from|import) {_OURS}\b", rf"\1 {package}", lines[number])
    return "".join(lines)


def _literal(text: str) -> str:
    """A text as Python spells it, readable where that is possible."""
    readable = f"r'''{text}'''"
    try:
        same = ast.literal_eval(readable) == text
    except SyntaxError:
        same = False
    return readable if same else repr(text)
