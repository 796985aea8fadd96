"""What likelihood hides: answers that are written, and models that go round their attention."""

import types

import mlx.core as mx
import pytest

import eval.quality.generated
from eval.quality.generated import ablation, generated_needle, generated_recall
from eval.quality.language import language
from tests.eval.quality.subjects import bytes_corpus, random_model, reads_text
from zoo.attention.catalog import variant_mapping
from zoo.models.silence import silenced


@pytest.fixture(scope="module")
def corpus(text_corpus, tmp_path_factory):
    return bytes_corpus(text_corpus, tmp_path_factory.mktemp("cache"))


def knowing(sight):
    """Stands for a model that finds what its prompt's last line begins, among so many characters."""

    def write(model, tokenizer, prompts, config):
        return [types.SimpleNamespace(text=found(prompt)) for prompt in prompts]

    def found(prompt):
        *before, opening = prompt.split("\n")
        seen = "\n".join(before)[-sight:]
        return seen.partition(opening)[2][:6]

    return write


def test_recall_counts_what_was_written_by_number_of_pairs(corpus, monkeypatch):
    monkeypatch.setattr(eval.quality.generated, "generate_batch", knowing(sight=12))
    whole, *parts = generated_recall(reads_text(random_model(), corpus))
    assert [(score.num_pairs, score.count) for score in (whole, *parts)] == [(None, 36), (2, 12), (4, 12), (8, 12)]
    # The last pair is all that it sees, and half of the questions of two pairs ask for that.
    assert 0 < parts[0].value < 1
    assert parts[2].value < parts[0].value
    assert whole.value == pytest.approx(sum(part.value for part in parts) / 3)


def test_a_needle_out_of_sight_is_not_found(corpus, monkeypatch):
    monkeypatch.setattr(eval.quality.generated, "generate_batch", knowing(sight=190))
    whole, *parts = generated_needle(reads_text(random_model(max_seq_len=400), corpus, sequence_length=300))
    assert [score.depth for score in parts] == [0.1, 0.5, 0.9]
    # Lines differ in length, and so does what lies behind a depth.
    first, middle, last = (score.value for score in parts)
    assert first < 0.2 < 0.8 < middle <= last == 1
    assert whole.value == pytest.approx((first + middle + last) / 3)
    (skipped,) = generated_needle(reads_text(random_model(), corpus))
    assert "no room" in skipped.skipped


def test_a_model_writes_its_answers_itself(corpus):
    scores = generated_recall(reads_text(random_model(max_seq_len=200), corpus, max_batches=1))
    assert [score.value for score in scores] == [0.0] * 4


def test_silence_is_what_no_output_of_the_attention_is(corpus):
    model = random_model(num_layers=2)
    tokens = mx.array([[5, 7, 11, 13, 17]])
    before = model(tokens)
    half = silenced(model, [1])
    assert mx.array_equal(model(tokens), before)
    model.layers[1].self_attn.o_proj.weight = mx.zeros_like(model.layers[1].self_attn.o_proj.weight)
    if "bias" in model.layers[1].self_attn.o_proj:
        model.layers[1].self_attn.o_proj.bias = mx.zeros_like(model.layers[1].self_attn.o_proj.bias)
    assert mx.allclose(half(tokens), model(tokens), atol=1e-6)
    assert not mx.allclose(half(tokens), before, atol=1e-3)


def test_an_ablation_names_each_variant_of_a_hybrid_and_its_whole_is_the_languages_own(corpus):
    hybrid = {"name": "pair", "layer_pattern": [variant_mapping("mha"), variant_mapping("swa")]}
    evaluated = reads_text(random_model(num_layers=2, attention=hybrid), corpus)
    scores = {score.metric: score.value for score in ablation(evaluated)}
    assert list(scores) == ["bits_per_byte", *(f"bits_per_byte without {each}" for each in ("attention", "mha", "swa"))]
    assert scores["bits_per_byte"] == language(evaluated)[0].value
    assert len(set(scores.values())) == 4
