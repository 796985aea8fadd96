"""`attention=` and `layers=` on a checkpoint: the report, and the laws of the whole model."""

import json

import mlx.core as mx
import pytest

from recipes.app import execute
from recipes.finetune import main as finetune
from recipes.generate import main as generate
from recipes.surgery import check_laws
from tests.zoo.attention.cases import CAUSAL
from zoo.attention import VariantConfig
from zoo.attention.catalog import variant
from zoo.checkpoints import load_checkpoint, save_checkpoint, swap_attention
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping

# As deep as it takes for a token to reach past a window of 64 in 192 tokens, and wide enough to be heard.
CONFIG = {
    "family": "llama",
    "vocab_size": 259,
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "num_kv_heads": 4,
    "intermediate_size": 64,
    "max_seq_len": 256,
    "init_std": 0.4,
}


@pytest.fixture(scope="module")
def model():
    mx.random.seed(5)
    made = build_model(model_config_from_mapping({**CONFIG, "attention": variant("mha").as_mapping()}))
    made.eval()
    return made


@pytest.fixture
def base(model, tmp_path):
    return save_checkpoint(tmp_path / "base", model=model, tokenizer=BytesTokenizer())


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_every_attention_keeps_its_laws_in_a_model_it_was_put_into(model, case):
    chosen = VariantConfig(
        name="case", mechanism=case.mechanism_name, implementation=case.implementation, parameters=case.parameters
    )
    swapped, _ = swap_attention(model, chosen)
    assert len(check_laws(swapped)) >= 3


class _Spoilt:
    """A model whose logits are changed on the way out."""

    def __init__(self, model, spoil):
        self.config, self.layers, self.make_cache, self._model, self._spoil = (
            *(model.config, model.layers, model.make_cache, model),
            spoil,
        )

    def __call__(self, tokens_BL, **given):
        return self._spoil(self._model(tokens_BL, **given))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x_BLV: x_BLV + 0.01 * mx.roll(x_BLV, -1, axis=1), "no output sees a token that it may not"),
        (lambda x_BLV: x_BLV + 0.01 * x_BLV.mean(axis=0, keepdims=True), "no other row of the batch changes"),
        (lambda x_BLV: mx.zeros_like(x_BLV) + 1, "neighbours see a token that they may"),
        (lambda x_BLV: x_BLV * (1 + 0.01 * x_BLV.shape[1]), "decoding equal the full forward pass"),
    ],
)
def test_a_broken_law_is_named(model, spoil, said):
    with pytest.raises(UserError, match=said) as caught:
        check_laws(_Spoilt(model, spoil))
    assert "\n" not in str(caught.value)


def test_a_document_that_sees_another_is_named(model, monkeypatch):
    swapped, _ = swap_attention(model, variant("mha"))
    through = type(swapped.layers[0].self_attn).__call__

    def forgetful(self, x_BLD, *, mask, cache=None):
        return through(self, x_BLD, mask=type(mask)(causal=True, offset=mask.offset), cache=cache)

    monkeypatch.setattr(type(swapped.layers[0].self_attn), "__call__", forgetful)
    with pytest.raises(UserError, match=r"broken: no document sees another \(error"):
        check_laws(swapped)


def run(capsys, name, main, *overrides):
    code = execute(name, main, list(overrides))
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]) if captured.out else None, captured.err


def test_finetune_reports_the_surgery_and_keeps_it_for_a_run_that_goes_on(base, text_corpus, tmp_path, capsys, caplog):
    given = [f"checkpoint={base}", f"run_dir={tmp_path / 'run'}", "data=text", f"data.path={text_corpus}"]
    given += [f"data.cache_dir={tmp_path / 'cache'}", "attention=linear", "layers=[-1]", "surgery.check=true"]
    given += ["training.batch_size=2", "training.sequence_length=32", "training.eval_every=null"]
    caplog.set_level("INFO")
    given += ["training.sample_tokens=0", "training.compile=false"]
    code, result, errors = run(capsys, "finetune", finetune, *given, "training.steps=1")
    assert code == 0, errors
    surgery = result["surgery"]
    assert (surgery["layers"], surgery["num_layers"], surgery["reused"]["q_proj.weight"]) == ([1], 2, 1)
    damage = surgery["damage"]
    assert damage["kl_nats_per_token"] > 0
    assert damage["top1_agreement"] < 1
    assert damage["bits_per_byte_after"] != damage["bits_per_byte_before"]
    assert any(check.startswith("prefill and decoding equal") for check in surgery["checks"])
    for part in ("attention linear in 1 of 2 layers: 1", "cache per token of 256", " tokens: KL "):
        assert part in caplog.text
    assert [each.name for each in load_checkpoint(tmp_path / "run").model.config.attention.layer_pattern] == [
        "mha",
        "linear",
    ]
    caplog.clear()
    code, again, errors = run(capsys, "finetune", finetune, *given, "training.steps=2", "resume=auto")
    assert code == 0, errors
    assert again["surgery"] == surgery
    assert "KL" not in caplog.text


def test_generate_takes_layers(base, capsys):
    given = (f"checkpoint={base}", "prompt=def", "max_tokens=3", "temperature=0")
    code, result, errors = run(capsys, "generate", generate, *given, "attention=swa", "layers=[0]")
    assert code == 0, errors
    assert result["attention"] == "swa+mha"
    code, _, errors = run(capsys, "generate", generate, *given, "layers=[0]")
    assert (code, errors.splitlines()[-1].split(";")[0]) == (2, "error: layers must be null without another attention")
    code, _, errors = run(capsys, "generate", generate, *given, "attention=swa", "layers=[2]")
    assert (code, errors.splitlines()[-1]) == (2, "error: layers must be numbers from -2 to 1; got 2")
