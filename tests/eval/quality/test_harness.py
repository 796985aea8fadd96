"""The optional harness: what is missing is one line, and its results become scores."""

import importlib.util
import types

import pytest

from eval.quality.harness import HarnessAnswers, HarnessConfig, harness_scores
from tests.eval.quality.models import random_model
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer
from zoo.training.likelihood import Likelihood


def test_a_missing_package_and_impossible_choices_are_refused_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lm-eval must be installed; run: pip install -e '\.\[harness\]'$"):
        HarnessConfig(tasks=("piqa",))
    assert HarnessConfig().tasks == ()
    for choices in ({"limit": 0}, {"num_shots": -1}, {"folder": str(tmp_path / "missing")}):
        with pytest.raises(UserError, match=next(iter(choices))):
            HarnessConfig(**choices)


def test_results_of_the_harness_become_scores_with_their_errors():
    values = {
        "alias": "piqa",
        "acc_norm,none": 0.5,
        "acc_norm_stderr,none": 0.25,
        "acc,none": 0.75,
        "acc_stderr,none": 0.125,
        "exact_match,strict": 1.0,
        "exact_match_stderr,strict": "N/A",
        "sample_len": 9,
    }
    scores = harness_scores(values, 16)
    assert [(score.metric, score.value, score.standard_error) for score in scores] == [
        ("acc", 0.75, 0.125),
        ("acc_norm", 0.5, 0.25),
        ("exact_match (strict)", 1.0, None),
    ]
    assert {score.count for score in scores} == {16}


def test_answers_come_in_the_order_of_the_questions():
    tokenizer, model = BytesTokenizer(), random_model(max_seq_len=19)
    ours, single = HarnessAnswers(model, tokenizer), Likelihood(model, tokenizer)

    def requests(arguments):
        return [types.SimpleNamespace(args=each) for each in arguments]

    pairs = [("a", "b"), ("", "cd"), ("a", "e"), ("a" * 40, "f" * 30)]
    assert ours.loglikelihood(requests(pairs), disable_tqdm=True) == [single.of_answer(*pair) for pair in pairs]
    texts = requests((answer,) for _, answer in pairs)
    assert ours.loglikelihood_rolling(texts, disable_tqdm=True) == [single.of_text(answer) for _, answer in pairs]
    asked = requests((context, {"until": ["x"], "max_gen_toks": 3}) for context, _ in pairs)
    assert len(ours.generate_until(asked, disable_tqdm=True)) == len(pairs)
