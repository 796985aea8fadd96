"""Hostile inputs from a seeded generator: values, texts, and changes to what was well formed."""

import copy
import json
import random
from typing import Any

TEXTS = (
    *["", " ", "null", "true", "NaN", "inf", "-0", "1e5", "695e0514", "0x10", "1_000", "07", "~", "~nouser", "-", "."],
    *["..", "../..", "/", "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/mem", "a\0b", "a\nb", "\r", "\x1b[31m"],
    *["${seed}", "${oc.env:HOME}", "${", "a=b", "a,b", "[x]", "{a: 1}", "'q'", '"q"', "\\", "$x^_{2}$", "<b>x</b>"],
    *["=1+1", "[x](javascript:alert(1))", "<!-- results:variants -->", "\u202etxt", "\ufeff", "漢字", "🙂", "e\u0301"],
    *["x" * 300, "x" * 100_000, "a/" * 3000, "\ud800", "__class__", "!!python/object:os.system", "*.txt", "[", "%s%n"],
)
NUMBERS = (
    *[0, 1, -1, 2, 3, 7, 10**3, 10**5, 10**6, 10**8, 10**9, 10**12, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64],
    *[10**18, 10**30, 10**400, -(10**9), -(2**63), 0.5, -0.5, 1.5, 1e-300, 1e-46, 1e30, 1e300, -1e300, 5e-324],
)
CONSTANTS = (None, True, False, float("nan"), float("inf"), float("-inf"))


def value(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value that nobody expects."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(TEXTS)
    if kind < 0.65:
        return rng.choice(NUMBERS)
    if kind < 0.8:
        return rng.choice(CONSTANTS)
    if depth == 2:
        return rng.choice(([], {}))
    if kind < 0.9:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind < 0.97:
        return {rng.choice(TEXTS[:40]): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return nested(50)


def nested(depth: int) -> Any:
    """Lists in lists."""
    result: Any = 1
    for _ in range(depth):
        result = [result]
    return result


def changed(rng: random.Random, tree: Any) -> Any:
    """A copy of a JSON value in which something, somewhere, is otherwise."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        places = list(_places(tree))
        if not places:
            return value(rng)
        container, key = rng.choice(places)
        action = rng.random()
        if action < 0.6:
            container[key] = value(rng)
        elif action < 0.75:
            del container[key]
        elif action < 0.85 and isinstance(container, dict):
            container[rng.choice(TEXTS)] = container.pop(key)
        elif action < 0.95 and isinstance(container, dict):
            container[rng.choice(TEXTS)] = value(rng)
        elif isinstance(container, list):
            container.insert(key, value(rng))
        else:
            container[key] = similar(rng, container[key])
    return tree


def similar(rng: random.Random, old: Any) -> Any:
    """A value of the same type, so that what is behind the first check is reached."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice([number for number in NUMBERS if isinstance(number, int)])
    if isinstance(old, float):
        return rng.choice([number for number in NUMBERS if isinstance(number, float)])
    return rng.choice(TEXTS) if isinstance(old, str) else value(rng)


def _places(tree: Any) -> Any:
    """Every container with every key or index in it; a few of a long list stand for it."""
    if isinstance(tree, dict):
        keys: Any = list(tree)
    elif isinstance(tree, list):
        keys = range(min(len(tree), 6))
    else:
        return
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def as_json(rng: random.Random, tree: Any) -> bytes:
    """JSON of a value, with what only Python's writer lets through, and now and then a key twice."""
    text = json.dumps(_with_text_keys(tree))
    strange = rng.random()
    if strange < 0.03 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]
    elif strange < 0.06:
        depth = rng.choice((500, 5_000, 200_000))
        text = text.replace(":", ": " + "[" * depth + "]" * depth + ', "x":', 1)
    return text.encode("utf-8", errors="surrogatepass")


def _with_text_keys(tree: Any) -> Any:
    """Keys as JSON has them."""
    if isinstance(tree, dict):
        return {str(key): _with_text_keys(item) for key, item in tree.items()}
    return [_with_text_keys(item) for item in tree] if isinstance(tree, list) else tree


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes after a power cut, a bad copy, or an editor."""
    data = bytearray(content)
    action = rng.randrange(9)
    size = len(data)
    place = rng.randrange(size + 1)
    if action == 0:
        return bytes(data[:place])
    if action == 1 and size:
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif action == 2:
        data[place:place] = rng.randbytes(rng.choice((1, 8, 200)))
    elif action == 3:
        end = min(size, place + rng.choice((1, 8, 512)))
        data[place:end] = bytes(end - place)
    elif action == 4:
        del data[place : place + rng.choice((1, 2, 8, 512))]
    elif action == 5:
        return b""
    elif action == 6:
        return content + content[:place]
    elif action == 7:
        return b"\xff\xfe" + content.decode("utf-8", errors="replace").encode("utf-16-le", errors="replace")
    else:
        data[place:place] = rng.choice((b"[" * 100_000, b"\n\n", b"\0", b"9" * 5000, b"{", b'"', b"\xed\xa0\x80"))
    return bytes(data)
