"""Exactly the answer's bytes are scored, for every cut of a text into context and answer, and every tokenizer."""

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.data.listed import ListedCorpus
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint, metaspace_checkpoint
from tests.zoo.training.tiny import tiny_model
from zoo.data.tokenizers import BytesTokenizer, PretrainedConfig, SentencePieceConfig, load_tokenizer
from zoo.training import likelihood
from zoo.training.likelihood import Likelihood, windows

TEXT = "for i in range(len(é▁x)): 🙂  in\n"
CORPUS = ListedCorpus(["for i in range(n):\n    for j in range(i):\n", "in range(len(x))"] * 9)
LONGEST = 19

MAKERS = {
    "bytes": lambda _: BytesTokenizer(),
    "sentencepiece": lambda folder: SentencePieceConfig(vocab_size=530).build(CORPUS, cache_dir=folder),
    "byte-level, from elsewhere": lambda folder: load_tokenizer(byte_level_checkpoint(folder)),
    "metaspace, from elsewhere": lambda folder: load_tokenizer(metaspace_checkpoint(folder)),
    "metaspace, without a start": lambda folder: load_tokenizer(metaspace_checkpoint(folder, start=None)),
    "metaspace, trained here": lambda folder: PretrainedConfig(path=str(metaspace_checkpoint(folder))).build(
        CORPUS, cache_dir=folder
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer):
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": LONGEST, "num_layers": 1, "init_std": 0.5}
    return tiny_model(family="llama", **sizes).eval()


@pytest.fixture
def scored(monkeypatch):
    """The tokens whose nats were taken."""
    tokens = []

    def token_nats(logits_PV, targets_P):
        tokens.extend(np.array(targets_P).tolist())
        return original(logits_PV, targets_P)

    original = likelihood.token_nats
    monkeypatch.setattr(likelihood, "token_nats", token_nats)
    return tokens


def nats_of(model, before, predicted):
    """Log-likelihood and greediness token by token, each from as many tokens before it as the model reads."""
    ids, total, greedy = [*before, *predicted], 0.0, True
    for place in range(len(before), len(ids)):
        logits_V = model(mx.array([ids[max(0, place - LONGEST) : place]]))[0, -1].astype(mx.float32)
        total += (logits_V - mx.logsumexp(logits_V))[ids[place]].item()
        greedy = greedy and mx.argmax(logits_V).item() == ids[place]
    return total, greedy


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_exactly_the_bytes_of_the_answer_are_scored(tokenizer, model, scored, cut):
    context, answer = TEXT[:cut], TEXT[cut:]
    found, _ = Likelihood(model, tokenizer).of_answer(context, answer)
    assert b"".join(tokenizer.token_bytes_V[token] for token in scored) == answer.encode()
    assert np.isfinite(found)


@pytest.mark.parametrize(
    ("context", "answer"), [("for i in", " range"), ("", "in range"), ("i", "é"), ("x = ", ""), ("", "")]
)
def test_the_likelihood_is_that_of_the_answers_tokens_after_the_contexts(tokenizer, model, context, answer):
    before = tokenizer.encode_prompt(context) or [tokenizer.start_id]
    expected, greedy = nats_of(model, before, tokenizer.encode(answer))
    found, is_greedy = Likelihood(model, tokenizer).of_answer(context, answer)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert is_greedy == greedy


def test_what_the_model_would_write_is_greedy(tokenizer, model):
    prompt = tokenizer.encode_prompt("in")
    best = max(
        (token for token in range(tokenizer.vocab_size) if tokenizer.token_bytes_V[token].isalpha()),
        key=lambda token: nats_of(model, prompt, [token])[0],
    )
    answer = tokenizer.decode([best])
    first = mx.argmax(model(mx.array([prompt]))[0, -1]).item()
    expected = tokenizer.encode(answer) == [best] and first == best
    assert Likelihood(model, tokenizer).of_answer("in", answer)[1] == expected


def test_a_context_longer_than_the_model_loses_its_beginning(tokenizer, model, scored):
    context, answer = "for i in range(n): " * 5, "in"
    found, _ = Likelihood(model, tokenizer).of_answer(context, answer)
    ids = [*tokenizer.encode_prompt(context), *tokenizer.encode(answer)]
    assert b"".join(tokenizer.token_bytes_V[token] for token in scored) == answer.encode()
    count = len(tokenizer.encode(answer))
    logits_LV = model(mx.array([ids[-LONGEST - 1 : -1]]))[0].astype(mx.float32)
    rows = logits_LV[-count:] - mx.logsumexp(logits_LV[-count:], axis=-1, keepdims=True)
    expected = sum(row[token].item() for row, token in zip(rows, ids[-count:], strict=True))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("text", ["", "in", TEXT, TEXT * 3])
def test_each_token_of_a_whole_text_is_scored_once(tokenizer, model, scored, text):
    found = Likelihood(model, tokenizer).of_text(text)
    assert scored == tokenizer.encode(text)
    if len(scored) < LONGEST:
        assert found == pytest.approx(nats_of(model, [tokenizer.start_id], scored)[0], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("num_before", "num_tokens"), [(1, 1), (1, 2), (3, 8), (1, 8), (1, 30), (9, 11), (9, 40)])
def test_windows_predict_each_token_once_and_read_no_more_than_the_model_can(num_before, num_tokens):
    found = list(windows(num_before, num_tokens, limit=7))
    assert [place for _, first, end in found for place in range(first, end)] == list(range(num_before, num_tokens))
    for start, first, end in found:
        assert 0 <= start < first
        assert end - 1 - start == min(7, end - 1)
