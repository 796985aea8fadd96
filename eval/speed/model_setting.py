"""A whole model at one setting: a YAML of configs/model with a variant, its tokens and its batch.

Letters: B batch, L length, V vocabulary.
"""

import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import yaml

from eval.rows import Cell
from eval.speed.op_setting import OpSetting
from zoo.attention import LayerShape
from zoo.config import require
from zoo.data.loader import Batch
from zoo.models import Model, ModelConfig, build_model, model_config_from_mapping
from zoo.runtime.backend import parse_dtype
from zoo.training.batches import to_arrays
from zoo.training.loss import Arrays

_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "model"
# Of every model, whatever its YAML says, so that the output projection weighs alike in all of them.
VOCAB_SIZE = 2048
# Learned positions must reach past the tokens that decoding is timed and checked with.
DECODE_HEADROOM = 8
# BERT's, https://arxiv.org/abs/1810.04805.
_MASKED_SHARE = 0.15
MODES = ("forward", "forward_backward", "step", "prefill", "decode")
DECODING_MODES = ("prefill", "decode")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSetting:
    """What decides a call of a model.

    Attributes:
        config: Family, sizes and attention.
        mode: Of the cell.
        batch_size: B.
        length: L; in decoding the tokens already in the cache.
        dtype: Of weights and activations; in a training step of activations alone.
        compiled: Whether the call is compiled.
        seed: Of weights and tokens.
    """

    config: ModelConfig
    mode: str
    batch_size: int
    length: int
    dtype: mx.Dtype
    compiled: bool
    seed: int

    @property
    def shape(self) -> LayerShape:
        """What the attention layers are told of the model."""
        return self.config.layer_shape

    def op_settings(self) -> list[OpSetting]:
        """The op of each distinct variant at the model's shape."""
        shape = self.shape
        return [
            OpSetting(
                variant=variant,
                batch_size=self.batch_size,
                length=self.length,
                num_heads=shape.num_heads,
                num_kv_heads=variant.shape_in(shape).num_kv_heads,
                head_dim=shape.head_dim,
                causal=shape.causal,
                dtype=self.dtype,
                compiled=self.compiled,
                seed=self.seed,
            )
            for variant in self.config.attention.variants()
        ]

    def model(self) -> Model:
        """The model with the seed's weights, evaluated; a training step's stay float32."""
        mx.random.seed(self.seed)
        built = build_model(self.config)
        if self.mode != "step":
            built.set_dtype(self.dtype)
        built.train(self.mode == "step")
        mx.eval(built.parameters())
        return built

    def tokens(self, *, batch_size: int | None = None, length: int | None = None) -> mx.array:
        """Random token ids, int32 [B, L], evaluated; of the setting's own size unless another is given."""
        generator = np.random.default_rng(self.seed)
        shape = (batch_size or self.batch_size, length or self.length)
        tokens_BL = mx.array(generator.integers(0, VOCAB_SIZE, shape, dtype=np.int32))
        mx.eval(tokens_BL)
        return tokens_BL

    def batch(self, *, batch_size: int | None = None, length: int | None = None) -> Arrays:
        """A training batch of random tokens: the next token everywhere, or of an encoder 15 % masked tokens."""
        B, L = batch_size or self.batch_size, length or self.length
        generator = np.random.default_rng(self.seed)
        tokens_BL = generator.integers(0, VOCAB_SIZE, (B, L + 1), dtype=np.int32)
        weights_BL = np.ones((B, L), dtype=np.float32)
        inputs_BL, targets_BL = tokens_BL[:, :-1], tokens_BL[:, 1:]
        if not self.config.causal:
            targets_BL, inputs_BL = inputs_BL, inputs_BL.copy()
            order_BL = generator.permuted(np.tile(np.arange(L), (B, 1)), axis=1)
            weights_BL = (order_BL < max(1, round(_MASKED_SHARE * L))).astype(np.float32)
            # Which token stands for a hidden one does not matter to the work.
            inputs_BL[weights_BL == 1] = 0
        batch = Batch(
            inputs_BL=inputs_BL,
            targets_BL=targets_BL,
            weights_BL=weights_BL,
            segments_BL=None,
            lengths_B=None,
            identity="random tokens",
        )
        arrays = to_arrays(batch)[0]
        mx.eval(arrays)
        return arrays

    def require_possible(self) -> None:
        """Refuses what the family or the attention cannot do, without computing anything.

        Raises:
            UserError: With the reason.
        """
        built = build_model(self.config)
        if self.mode in DECODING_MODES:
            require(self.config.causal, "modes", f"suit a {self.config.family} model, which is an encoder", self.mode)
            built.make_cache()


def model_setting(cell: Cell) -> ModelSetting:
    """The setting of a cell of level model.

    The model's own sizes count, not the cell's; the vocabulary is `VOCAB_SIZE`, and `max_seq_len` is raised to the
    cell's length where it is less.

    Raises:
        UserError: If there is no such model, or the cell contradicts it.
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    require(cell.model in names, "models", "be in configs/model", cell.model, allowed=names)
    require(cell.mode in MODES, "modes", "suit a model", cell.mode, allowed=MODES)
    values = yaml.safe_load((_FOLDER / f"{cell.model}.yaml").read_text(encoding="utf-8"))
    needed = cell.length + (DECODE_HEADROOM if cell.mode == "decode" else 0)
    changes = {
        "vocab_size": VOCAB_SIZE,
        "max_seq_len": max(values["max_seq_len"], needed),
        "attention": cell.attention_mapping,
        # A timed step is compared with another one.
        "dropout": 0.0,
    }
    config = model_config_from_mapping({**values, **changes})
    require(config.causal == cell.causal, "causal", f"be {config.causal} in a {config.family} model", cell.causal)
    return ModelSetting(
        config=config,
        mode=cell.mode,
        batch_size=cell.batch_size,
        length=cell.length,
        dtype=parse_dtype(cell.dtype),
        compiled=cell.compiled,
        seed=cell.seed,
    )
