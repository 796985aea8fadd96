"""Adapters go both ways between here, mlx-lm and PEFT, and a training step here is the one that mlx-lm makes."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx import optimizers
from mlx.utils import tree_flatten, tree_map, tree_map_with_path
from mlx_lm.models import llama
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.trainer import TrainingArgs
from mlx_lm.tuner.trainer import train as mlx_lm_train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.tuner.utils import load_adapters as mlx_lm_load_adapters
from mlx_lm.utils import load_model as load_in_mlx_lm

from tests.tolerances import tolerance
from tests.zoo.checkpoints.adapted import LLAMA, TOKENS, adapted, ours
from zoo.attention.catalog import variant
from zoo.checkpoints import load_checkpoint, load_whole, save_checkpoint, swap_attention
from zoo.checkpoints.adapters import weights_fingerprint, write_adapters
from zoo.checkpoints.export import export_model
from zoo.checkpoints.foreign_adapters import load_adapters
from zoo.data.examples import ExampleLoader, ExampleSplit
from zoo.data.tokenizers import BytesTokenizer
from zoo.models.adapters import Adapters, LoRAConfig, QuantizationConfig, attach_adapters
from zoo.training import StepOptions, TrainStep, build_optimizer, optimizer_config_from_mapping
from zoo.training.batches import to_arrays


def theirs():
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=LLAMA["hidden_size"],
        num_hidden_layers=LLAMA["num_layers"],
        intermediate_size=LLAMA["intermediate_size"],
        num_attention_heads=LLAMA["num_heads"],
        num_key_value_heads=LLAMA["num_kv_heads"],
        rms_norm_eps=1e-5,
        vocab_size=LLAMA["vocab_size"],
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    model = llama.Model(arguments)
    weights = dict(tree_flatten(ours().parameters()))
    model.load_weights(
        [(name if name.startswith("lm_head") else f"model.{name}", array) for name, array in weights.items()]
    )
    return model


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_layer_adds_its_update_as_mlx_lm_does(dtype):
    model = ours()
    attach_adapters(model, Adapters(kind="lora", base="", base_fingerprint="", lora=LoRAConfig(rank=3)), dtype=dtype)
    layer = model.layers[0].mlp.down_proj
    layer.lora_b = mx.random.normal(layer.lora_b.shape)
    x = mx.random.normal((2, 5, layer.lora_a.shape[0])).astype(dtype)
    expected = LoRALinear.__call__(layer, x)
    assert layer(x).dtype == expected.dtype == dtype
    assert mx.allclose(layer(x), expected, atol=1e-5)
    assert not mx.allclose(layer(x), layer.linear(x), atol=0.1)


PLACES = [LoRAConfig(rank=3), LoRAConfig(rank=5, scale=2.0, keys=("self_attn.q_proj", "mlp.down_proj"), num_layers=2)]


@pytest.mark.parametrize("lora", PLACES)
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_lm_reads_adapters_from_here_with_equal_logits(kind, lora, tmp_path):
    model = adapted(kind, lora)
    save_checkpoint(tmp_path / "checkpoint", model=model)
    other = mlx_lm_load_adapters(theirs(), str(tmp_path / "checkpoint"))
    other.eval()
    assert mx.allclose(model(TOKENS), other(TOKENS), atol=1e-5)
    assert not mx.allclose(model(TOKENS), ours()(TOKENS), atol=1e-3)


@pytest.mark.parametrize("lora", PLACES)
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_from_mlx_lm_are_read_here_with_equal_logits(kind, lora, tmp_path):
    other = theirs()
    other.freeze()
    parameters = {"rank": lora.rank, "scale": lora.scale, "dropout": 0.0}
    parameters |= {} if lora.keys is None else {"keys": list(lora.keys)}
    num_layers = -1 if lora.num_layers is None else lora.num_layers
    linear_to_lora_layers(other, num_layers, parameters, use_dora=kind == "dora")
    other.update(tree_map_with_path(lambda _, x: x + 0.05, other.trainable_parameters()))
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), dict(tree_flatten(other.trainable_parameters())))
    config = {"fine_tune_type": kind, "num_layers": num_layers, "lora_parameters": parameters, "iters": 3, "model": "x"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    model = ours()
    load_adapters(model, tmp_path, base="base")
    model.eval()
    other.eval()
    assert mx.allclose(model(TOKENS), other(TOKENS), atol=1e-5)


class Losses(TrainingCallback):
    """What mlx-lm reports."""

    def __init__(self):
        self.found = []

    def on_train_loss_report(self, train_info):
        self.found.append(train_info["train_loss"])


@pytest.fixture
def uncompiled():
    """Compiling takes a C++ compiler's time, and mlx-lm's step has no switch for it."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.usefixtures("uncompiled")
def test_every_loss_of_a_lora_training_is_that_of_mlx_lm(tmp_path):
    lora, steps = LoRAConfig(rank=4), 12
    rng = np.random.default_rng(2)
    lengths = rng.integers(3, 50, size=24)
    tokens_T = rng.integers(0, 9, size=lengths.sum()).astype(np.int32)
    ends_N = np.cumsum(lengths)
    # Prompts of about half a row are not learnt.
    trained_T = np.concatenate([np.arange(length) >= length // 2 for length in lengths])
    split = ExampleSplit(name="train", tokens_T=tokens_T, marks_T=trained_T, ends_N=ends_N)
    loader = ExampleLoader(split, BytesTokenizer(), batch_size=4, sequence_length=40, seed=1)
    model = adapted("lora", lora, shift=0.0)
    save_checkpoint(tmp_path / "start", model=model)
    other = theirs()
    other.freeze()
    mlx_lm_load_adapters(other, str(tmp_path / "start"))

    config = {"name": "adamw", "learning_rate": 1e-2, "schedule": "constant", "warmup_fraction": 0, "weight_decay": 0}
    optimizer = build_optimizer(optimizer_config_from_mapping(config), model, steps=steps)
    step = TrainStep(model, optimizer, StepOptions(causal=True, compile=False))
    model.train()
    found = []
    for number in range(steps):
        batch = loader.batch(number)
        weight = float(batch.weights_BL.sum())
        nats, *_ = step(to_arrays(batch), weight)
        found.append(nats.item() / weight)

    def batches(**_):
        for number in range(steps):
            batch = loader.batch(number)
            rows = np.concatenate([batch.inputs_BL[:, :1], batch.targets_BL], axis=1)
            # mlx-lm counts targets from 1, the first and the last inclusive.
            first_B = batch.weights_BL.argmax(axis=1) + 1
            assert batch.lengths_B is not None
            yield mx.array(rows), mx.array(np.stack([first_B, batch.lengths_B], axis=1))

    losses = Losses()
    mlx_lm_train(
        other,
        optimizers.AdamW(1e-2, betas=[0.9, 0.95], weight_decay=0.0, bias_correction=True),
        train_dataset=[],
        args=TrainingArgs(batch_size=4, iters=steps, steps_per_report=1, adapter_file=str(tmp_path / "a.safetensors")),
        iterate_batches=batches,
        training_callback=losses,
    )
    assert len(losses.found) == steps
    assert found == pytest.approx(losses.found, abs=1e-4)
    assert found[0] - found[-1] > 0.1


@pytest.mark.parametrize(
    ("attention", "quantization"), [("gated_delta", None), ("learned_sinks", QuantizationConfig(group_size=32))]
)
def test_what_an_exchanged_attention_has_of_its_own_is_trained_and_saved_with_the_adapters(
    tmp_path, attention, quantization
):
    """Neither the base nor an adapter holds it."""
    base = save_checkpoint(
        tmp_path / "base", model=ours(hidden_size=32, intermediate_size=32), tokenizer=BytesTokenizer()
    )
    model, surgery = swap_attention(load_whole(base).model, variant(attention), layers=[1, 2])
    whole = surgery.new_names(model)
    fingerprint = weights_fingerprint(model, without=whole)
    adapters = Adapters(
        kind="lora",
        lora=LoRAConfig(rank=2),
        base=str(base),
        base_fingerprint=fingerprint,
        whole=whole,
        quantization=quantization,
    )
    attach_adapters(model, adapters, dtype=mx.bfloat16)
    trained = dict(tree_flatten(model.trainable_parameters()))
    assert whole == tuple(name for name in trained if "lora" not in name)
    assert {trained[name].dtype for name in trained} == {mx.float32}
    assert not any("g_proj.lora" in name for name in trained)
    assert any("layers.0.self_attn.q_proj.lora_a" in name for name in trained)
    model.update(tree_map(lambda array: array + 0.03, model.trainable_parameters()))
    found = model(TOKENS)
    save_checkpoint(tmp_path / "healed", model=model, tokenizer=BytesTokenizer())
    again = load_checkpoint(tmp_path / "healed").model
    assert again.adapters == adapters
    for name, array in tree_flatten(model.trainable_parameters()):
        assert mx.array_equal(array, dict(tree_flatten(again.parameters()))[name]), name
    fused = load_whole(tmp_path / "healed").model
    assert fused.adapters is None
    tolerated = tolerance(mx.bfloat16)
    assert mx.abs(fused(TOKENS) - again(TOKENS)).max().item() <= tolerance(mx.float32)
    assert mx.abs(found.astype(mx.float32) - again(TOKENS)).max().item() <= tolerated
    further, _ = swap_attention(load_whole(base).model, variant(attention), layers=[1, 2])
    load_adapters(further, tmp_path / "healed", base=str(base), quantization=quantization, whole=whole)
    assert mx.array_equal(further(TOKENS), again(TOKENS)).item()


def test_adapters_of_a_gpt_go_to_mlx_lm_with_the_model_and_earlier_ones_are_read(tmp_path):
    base = ours(family="gpt", num_kv_heads=None, attention=variant("linear").as_mapping())
    (tmp_path / "exported").mkdir()
    export_model(tmp_path / "exported", base, tokenizer=BytesTokenizer())
    adapted = ours(family="gpt", num_kv_heads=None, attention=variant("linear").as_mapping())
    attach_adapters(adapted, Adapters(kind="lora", lora=LoRAConfig(rank=2), base="b", base_fingerprint="f"))
    adapted.update(tree_map(lambda each: each + 0.1, adapted.trainable_parameters()))
    (tmp_path / "adapters").mkdir()
    write_adapters(tmp_path / "adapters", adapted)
    adapted.eval()
    model, _ = load_in_mlx_lm(tmp_path / "exported", trust_remote_code=True)
    with_adapters = mlx_lm_load_adapters(model, str(tmp_path / "adapters"))
    with_adapters.eval()
    assert mx.abs(with_adapters(TOKENS) - adapted(TOKENS)).max() <= tolerance(mx.float32)
    path = tmp_path / "adapters" / "adapters.safetensors"
    arrays = {name.removeprefix("model."): array for name, array in mx.load(str(path)).items()}
    mx.eval(arrays)
    mx.save_safetensors(str(path), arrays)
    load_adapters(base, tmp_path / "adapters", base="b")
    base.eval()
    assert mx.array_equal(base(TOKENS), adapted(TOKENS))
