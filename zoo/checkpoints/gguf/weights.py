"""The tensors of a GGUF file under the names, and in the order of rows, of Hugging Face's layout.

Files of Llama keep the rows of queries and keys in the order of Llama's first release, in which rotary positions turn
neighbours; in Hugging Face's order they turn the two halves of a head. Row 2 i + s of a head goes to s H/2 + i. Blocks
of quantized numbers run along rows, so that the reordering does not touch them.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from zoo.checkpoints.gguf.blocks import decoded
from zoo.checkpoints.gguf.header import Header
from zoo.checkpoints.huggingface.weights import Weights
from zoo.checkpoints.tensors import Entry
from zoo.config import UserError
from zoo.config.errors import shortened
from zoo.config.files import open_regular

EMBEDDING, OUTPUT, ROPE_FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
_MODULES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_OF_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAME = re.compile(r"(?:blk\.(?P<layer>0|[1-9]\d{0,5})\.)?(?P<module>[a-z_]+)\.(?P<leaf>weight|bias)")
# What files of these architectures keep in the older order, and the key with the number of heads of each.
_REORDERED = {"llama": {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}}


def their_name(header: Header, name: str) -> str:
    """The name of a tensor in Hugging Face's layout.

    Raises:
        UserError: If models of this family have no such tensor.
    """
    found = _NAME.fullmatch(name)
    if found is not None:
        layer, module = found["layer"], found["module"]
        if layer is None and module in _MODULES:
            return f"{_MODULES[module]}.{found['leaf']}"
        if layer is not None and module in _OF_A_LAYER:
            return f"model.layers.{layer}.{_OF_A_LAYER[module]}.{found['leaf']}"
    raise UserError(f"{header.where} must hold no tensors but a Llama's; got {shortened(name)}")


def name_in_file(theirs: str) -> str:
    """The name in a file of a tensor of Hugging Face's layout, of a family that files have."""
    module, _, leaf = theirs.rpartition(".")
    outer = {name: ours for ours, name in _MODULES.items()}
    if module in outer:
        return f"{outer[module]}.{leaf}"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{ {name: ours for ours, name in _OF_A_LAYER.items()}[inner] }.{leaf}"


def stored_order(name: str, architecture: str, num_rows: int, heads: tuple[int, int]) -> mx.array | None:
    """The rows of a tensor in a file's order, by their place in Hugging Face's; None where the orders are one.

    Args:
        name: In the file.
        architecture: Of the file.
        num_rows: Of the tensor.
        heads: Of queries, and of keys and values.
    """
    found = _NAME.fullmatch(name)
    module = found["module"] if found else ""
    if module not in _REORDERED.get(architecture, {}):
        return None
    num_heads = heads[0] if module == "attn_q" else heads[1]
    return mx.array(np.arange(num_rows).reshape(num_heads, 2, -1).swapaxes(1, 2).reshape(-1))


class StoredWeights(Weights):
    """The tensors of a GGUF file; a quantized one is `weight`, `scales` and `biases`."""

    def __init__(self, header: Header, path: Path) -> None:
        """Takes the header of a file and the file.

        Raises:
            UserError: If it holds a tensor that is none of its family's.
        """
        self._header, self._path = header, path
        self._names = {name: their_name(header, name) for name in header.tensors if name != ROPE_FACTORS}
        self._entries: dict[str, Entry] = {}
        for name, theirs in self._names.items():
            tensor = header.tensors[name]
            self._entries |= {
                _leaf(theirs, leaf): Entry(dtype=dtype, shape=shape, data_offsets=(0, num_bytes))
                for leaf, (dtype, shape, num_bytes) in tensor.kind.arrays(tensor.shape).items()
            }

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._entries

    def where(self, name: str) -> str:
        return self._header.where

    def arrays(self) -> Iterator[tuple[str, mx.array]]:
        for name, theirs in self._names.items():
            rows = _order(self._header, name)
            for leaf, array in _arrays(self._header, self._path, name).items():
                yield _leaf(theirs, leaf), array if rows is None else array[rows]

    def read(self, name: str) -> mx.array:
        return next(array for found, array in self.arrays() if found == name)


def _leaf(name: str, leaf: str) -> str:
    """The name of one of a tensor's arrays; its own last part is `weight` or, of what is never quantized, `bias`."""
    return name if leaf == "weight" else f"{name.removesuffix('.weight')}.{leaf}"


def values_of(header: Header, path: Path, name: str) -> np.ndarray:
    """The numbers of a tensor that is not quantized.

    Raises:
        UserError: If it is quantized, or the file cannot be read.
    """
    if header.tensors[name].kind.bits is not None:
        raise UserError(f"{header.where}: {name} must not be quantized; got {header.tensors[name].kind.name}")
    return np.array(_arrays(header, path, name)["weight"].astype(mx.float32))


def _arrays(header: Header, path: Path, name: str) -> dict[str, mx.array]:
    tensor = header.tensors[name]
    with open_regular(path, what="checkpoint") as stream:
        try:
            stream.seek(tensor.start)
            content = stream.read(tensor.num_bytes)
        except OSError as error:
            raise UserError(f"{header.where} must be readable; {error.strerror or error}") from None
    if len(content) < tensor.num_bytes:
        raise UserError(f"{header.where} must stay as it is while it is read; it became shorter")
    return decoded(tensor.kind, tensor.shape, content)


def _order(header: Header, name: str) -> mx.array | None:
    """The rows in Hugging Face's order; None where they are in it."""
    found = _NAME.fullmatch(name)
    key = _REORDERED.get(header.architecture, {}).get(found["module"] if found else "")
    if key is None:
        return None
    prefix = header.architecture
    num_heads = header.integer(f"{prefix}.{key}", header.integer(f"{prefix}.attention.head_count"))
    num_rows = header.tensors[name].shape[0]
    if num_heads < 1 or num_rows % (2 * num_heads):
        must = f"have rows for {num_heads} heads, an even number each"
        raise UserError(f"{header.where}: {name} must {must}; got {num_rows}")
    return mx.array(np.arange(num_rows).reshape(num_heads, -1, 2).swapaxes(1, 2).reshape(-1))
