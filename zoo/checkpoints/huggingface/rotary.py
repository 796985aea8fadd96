"""Rotary positions as configs of transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`) say them."""

from collections.abc import Mapping
from typing import Any

from zoo.config import UserError
from zoo.config.errors import shortened

_DEFAULT_THETA = 10_000.0
# Fields of each kind: those that have to be there, and those that may.
_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), ()),
    "yarn": (
        ("factor", "original_max_position_embeddings"),
        ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"),
    ),
}


def rotary_positions(config: Mapping[str, Any], *, max_seq_len: int, where: str) -> dict[str, Any]:
    """Our fields `rope_theta` and `rope_scaling` from a whole `config.json`.

    Args:
        config: The file.
        max_seq_len: Its `max_position_embeddings`.
        where: What to call it in messages.

    Raises:
        UserError: If it asks for a kind that is not read here, or lacks a field of its kind.
    """
    # The older name counts where both are there, as in transformers.
    field = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(field) or {}
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {field} must be a mapping; got {shortened(given)}")
    where = f"{where}: {field}"
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise UserError(
            f"{where}.rope_type must be a known kind; got {shortened(kind)} (choices: {', '.join(_FIELDS)})"
        )
    nested = [key for key, value in given.items() if isinstance(value, Mapping)]
    if nested:
        raise UserError(f"{where} must say the same of every layer; got {shortened(nested)}")
    for share in (given.get("partial_rotary_factor"), config.get("partial_rotary_factor")):
        if share not in (None, 1):
            raise UserError(f"{where}.partial_rotary_factor must be 1; got {shortened(share)}")
    theta = given.get("rope_theta", config.get("rope_theta", _DEFAULT_THETA))
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    return {"rope_theta": theta, "rope_scaling": _scaling(kind, given, config, max_seq_len, where)}


def describe_rotary(theta: float, scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields that `rotary_positions` reads, as both versions of transformers know them."""
    named = {"rope_type": "default"} if scaling is None else dict(scaling)
    return {
        "rope_theta": theta,
        "rope_scaling": None if scaling is None else named,
        "rope_parameters": {**named, "rope_theta": theta},
    }


def _scaling(
    kind: str, given: Mapping[str, Any], config: Mapping[str, Any], max_seq_len: int, where: str
) -> dict[str, Any]:
    required, optional = _FIELDS[kind]
    values = {key: given[key] for key in (*required, *optional) if given.get(key) is not None}
    trained = "original_max_position_embeddings"
    if trained in required:
        # One beside the scaling comes before the one within, as in transformers.
        values[trained] = config.get(trained, values.get(trained, max_seq_len))
    if kind == "yarn":
        if "factor" not in values and isinstance(values[trained], int) and values[trained] > 0:
            values["factor"] = max_seq_len / values[trained]
        # Transformers asks for both of them, and takes 0 for a field that is not there.
        if not (values.get("mscale") and values.get("mscale_all_dim")):
            values = {key: value for key, value in values.items() if key not in ("mscale", "mscale_all_dim")}
        values = {key: value for key, value in values.items() if value != 0 or not key.startswith("beta_")}
    missing = [key for key in required if key not in values]
    if missing:
        raise UserError(f"{where} must have {', '.join(missing)} where rope_type is {kind}")
    return {"rope_type": kind, **values}
