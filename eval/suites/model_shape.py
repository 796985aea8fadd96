"""What a shipped model's cells need to know of it: the YAML's own numbers."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from zoo.config import require

_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A model around its attention.

    Attributes:
        name: Of the YAML.
        num_layers: Transformer blocks.
        num_heads: N.
        num_kv_heads: K, the model's own grouping.
        head_dim: H.
        hidden_size: D.
        positions: Where token order comes from.
        causal: Whether it is a language model.
    """

    name: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    positions: str
    causal: bool

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a cell inside this model, or of the model itself."""
        return {
            "model": self.name,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_size": self.hidden_size,
            "causal": self.causal,
        }

    @property
    def layer_detail(self) -> str:
        """The detail of a cell of level layer that stands for one of the model's layers."""
        return f"positions={self.positions}"


def num_layers_of(name: str | None) -> int | None:
    """Transformer blocks of a shipped model; None for any other."""
    return model_shape(name).num_layers if name in _names() else None


def _names() -> list[str]:
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def model_shape(name: str) -> ModelShape:
    """The shape of a shipped model.

    Raises:
        UserError: If there is no such model; lists those there are.
    """
    require(name in _names(), "models", "be in configs/model", name, allowed=_names())
    values = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    heads = values["num_heads"]
    return ModelShape(
        name=name,
        num_layers=values["num_layers"],
        num_heads=heads,
        num_kv_heads=values.get("num_kv_heads") or heads,
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        hidden_size=values["hidden_size"],
        positions=values["positions"],
        causal=values["family"] != "bert",
    )
