"""A dozen steps lower the loss: every causal variant in a GPT and a Llama, every bidirectional one in a BERT."""

import json
import statistics
from pathlib import Path

import pytest

from recipes.app import execute
from recipes.train import main
from zoo.attention.catalog import attention_names, variant

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


@pytest.mark.parametrize(("model", "attention"), _pairs())
def test_a_dozen_steps_lower_the_loss(
    model: str, attention: str, text_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = execute(
        "train",
        main,
        [
            f"attention={attention}",
            f"model={model}",
            "model.num_layers=2",
            "model.hidden_size=32",
            "model.intermediate_size=64",
            "optimizer=adamw",
            f"optimizer.learning_rate={LEARNING_RATE}",
            "data=text",
            f"data.path={text_corpus}",
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
            f"run_dir={tmp_path / 'run'}",
            f"data.cache_dir={text_corpus.parent / 'token-cache'}",
        ],
    )
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result = json.loads(captured.out.splitlines()[-1])
    assert (result["attention"], result["steps"]) == (attention, STEPS)
    losses = [json.loads(line)["train_loss"] for line in _metrics(tmp_path / "run") if "train_loss" in line]
    assert len(losses) == STEPS
    assert statistics.mean(losses[-3:]) < statistics.mean(losses[:3]) - 0.7


def _metrics(run_dir: Path) -> list[str]:
    return (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
