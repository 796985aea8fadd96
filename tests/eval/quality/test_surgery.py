"""What is left of a model without its attention."""

import pytest

from eval.quality.tasks.language import language
from eval.quality.tasks.surgery import ablation
from tests.eval.quality.subjects import bytes_data, random_model, reads_text
from zoo.attention.catalog import variant_mapping


@pytest.fixture(scope="module")
def data(text_corpus, tmp_path_factory):
    return bytes_data(text_corpus, tmp_path_factory.mktemp("cache"))


def test_an_ablation_names_each_variant_of_a_hybrid_and_its_whole_is_the_languages_own(data):
    hybrid = {"name": "pair", "layer_pattern": [variant_mapping("mha"), variant_mapping("swa")]}
    evaluated = reads_text(random_model(num_layers=2, attention=hybrid), data)
    scores = {score.metric: score.value for score in ablation(evaluated)}
    assert list(scores) == ["bits_per_byte", *(f"bits_per_byte without {each}" for each in ("attention", "mha", "swa"))]
    assert scores["bits_per_byte"] == language(evaluated)[0].value
    assert len(set(scores.values())) == 4
