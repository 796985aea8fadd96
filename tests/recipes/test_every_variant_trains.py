"""A dozen steps lower the loss: every causal variant in a GPT and a Llama, every bidirectional one in a BERT."""

import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recipes.job import Command, Job
from recipes.train import train
from zoo.attention.catalog import attention_names, variant, variant_mapping

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

LANGUAGE_MODELS, ENCODERS = ("gpt_tiny", "llama_tiny"), ("bert_tiny",)
# Five times the shipped rate: the loss falls by 1.4, further than in thirty steps at that rate, and sooner.
STEPS, LEARNING_RATE = 12, 1e-2


def _pairs() -> list[tuple[str, str]]:
    pairs = []
    for name in attention_names():
        able = [part.capabilities for part in variant(name).variants()]
        if all(each.causal for each in able):
            pairs += [(model, name) for model in LANGUAGE_MODELS]
        if all(each.bidirectional for each in able):
            pairs += [(model, name) for model in ENCODERS]
    return pairs


@pytest.fixture(scope="module")
def composed(text_corpus: Path) -> Callable[[str], dict[str, Any]]:
    """The configuration of a model's training, composed once: that every variant composes is shown elsewhere."""

    @functools.cache
    def compose_for(model: str) -> dict[str, Any]:
        arguments = [
            f"model={model}",
            "model.num_layers=2",
            "model.hidden_size=32",
            "model.intermediate_size=64",
            "optimizer=adamw",
            f"optimizer.learning_rate={LEARNING_RATE}",
            "data=text",
            f"++data.path={text_corpus}",
            "tokenizer=bytes",
            f"training.steps={STEPS}",
            "training.batch_size=2",
            # Longer than the shipped windows and blocks, and no multiple of either.
            "training.sequence_length=67",
            "training.log_every=1",
            "training.eval_every=null",
            "training.eval_batches=2",
            # Compiling costs a C++ compiler's time; that compiled equals eager is the contract's to show.
            "training.compile=false",
            "training.sample_tokens=0",
            f"++data.cache_dir={text_corpus.parent / 'token-cache'}",
        ]
        with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
            return OmegaConf.to_container(compose(config_name="train", overrides=arguments), resolve=True)

    return compose_for


@pytest.mark.parametrize(("model", "attention"), _pairs())
def test_a_dozen_steps_lower_the_loss(
    model: str, attention: str, composed: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    config = {**composed(model), "attention": variant_mapping(attention), "run_dir": str(tmp_path / "run")}
    command = Command(overrides=(), choices={"attention": attention, "model": model})
    result = train(Job(config=config, command=command, keys=(), varying=()))
    assert (result["attention"], result["steps"]) == (attention, STEPS)
    losses = [json.loads(line)["train_loss"] for line in _metrics(tmp_path / "run") if "train_loss" in line]
    assert len(losses) == STEPS
    assert statistics.mean(losses[-3:]) < statistics.mean(losses[:3]) - 0.7


def _metrics(run_dir: Path) -> list[str]:
    return (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
