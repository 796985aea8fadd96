"""Every shipped model can be built, and has the size its file announces."""

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import yaml

from tests.zoo.models import cases
from zoo.attention import mechanism_names
from zoo.attention.registry import mechanism
from zoo.config import UserError
from zoo.models import Model, build_model, model_config_from_mapping

FOLDER = Path(__file__).parents[3] / "configs" / "model"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
EXACT = {
    # 124 M, 110 M with both heads and 1.1 B: the counts of the published checkpoints.
    "gpt2": 124_439_808,
    "bert_base": 110_106_428,
    "tinyllama_1b": 1_100_048_384,
}
MILLIONS = {
    "gpt_tiny": 1.0,
    "gpt_small": 10.0,
    "gpt_recall": 0.2,
    "gpt_eight_heads": 3.7,
    "bert_tiny": 1.0,
    "llama_tiny": 1.0,
    "llama_small": 10.0,
}


def _built(name: str, attention: dict[str, Any]) -> Model:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return build_model(model_config_from_mapping({**values, "attention": attention}, tokenizer_vocab_size=2048))


def test_every_shipped_model_has_a_known_size() -> None:
    assert set(NAMES) == {*EXACT, *MILLIONS}


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_model_is_as_large_as_it_says(name: str) -> None:
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    count = _built(name, cases.MHA).num_parameters()
    if name in EXACT:
        assert count == EXACT[name]
    else:
        assert count == pytest.approx(MILLIONS[name] * 1e6, rel=0.25)
    # Counting computes no weight: a model larger than memory can be described.
    assert mx.get_peak_memory() - before < 1_000_000


@pytest.mark.parametrize("name", [name for name in NAMES if name in MILLIONS])
def test_every_small_shipped_model_runs(name: str) -> None:
    logits = _built(name, cases.HYBRID)(mx.array([[5, 2047, 0]]))
    assert logits.shape == (1, 3, 2048)
    # A fresh model knows nothing: on average a token costs what it costs under uniform scores.
    nats = mx.logsumexp(logits, axis=-1) - logits.mean(axis=-1)
    assert nats.mean().item() == pytest.approx(math.log(2048), rel=0.05)


@pytest.mark.parametrize("name", mechanism_names())
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_every_mechanism_is_built_or_refused_with_its_reason(family: str, name: str) -> None:
    declared = mechanism(name)
    implementation = next(iter(declared.implementations))
    capabilities = declared.capabilities(declared.config(), implementation)
    attention = {"name": name, "mechanism": name}
    if capabilities.bidirectional if family == "bert" else capabilities.causal:
        assert cases.model(family, attention=attention, num_kv_heads=None).hidden(cases.tokens(1, 16)).shape[1] == 16
        return
    reason = capabilities.refusal or ("cannot look ahead" if family == "bert" else "is not causal")
    with pytest.raises(UserError) as caught:
        cases.model(family, attention=attention, num_kv_heads=None)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
