"""A classifier keeps the encoder, and its own head exactly where the labels fit that."""

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.models import cases
from zoo.config import UserError
from zoo.models.classification import as_classifier, classifier_for

NAMED = ("bad", "fair", "good")


@pytest.mark.parametrize(
    ("own", "found", "keeps", "labels", "classes"),
    [
        (NAMED, ("good", "bad"), True, NAMED, (2, 0)),
        (NAMED, (2, 0), True, NAMED, (2, 0)),
        (NAMED, ("awful", "good"), False, ("awful", "good"), (0, 1)),
        (NAMED, (0, 3), False, ("0", "1", "2", "3"), (0, 3)),
        (None, (0, 1, 2), True, ("0", "1", "2"), (0, 1, 2)),
        (None, (1, 0), False, ("0", "1"), (1, 0)),
        (None, ("b", "a"), False, ("a", "b"), (1, 0)),
    ],
)
def test_a_head_stays_where_its_classes_are_those_of_the_labels(own, found, keeps, labels, classes):
    model = cases.varied(cases.model("bert", num_classes=3, labels=own))
    weight, query = np.array(model.classifier.weight), np.array(model.layers[0].self_attn.q_proj.weight)
    classifier, of_labels = classifier_for(model, found)
    assert (classifier.config.labels, of_labels, classifier.config.num_classes) == (labels, classes, len(labels))
    assert np.array_equal(classifier.layers[0].self_attn.q_proj.weight, query)
    assert (
        classifier.classifier.weight.shape == weight.shape and np.array_equal(classifier.classifier.weight, weight)
    ) == keeps
    assert not {"lm_head", "masked_token_transform", "masked_token_bias"} & classifier.keys()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (("good", 3), "must all be names or all be numbers from 0 on; got 'good' and 3"),
        ((1,), r"must be two different ones at least; got \[1\]"),
        ((0, -1), "that are numbers must be from 0 to 99999; got -1"),
        ((0, 10**30), "that are numbers must be from 0 to 99999; got 1000"),
    ],
)
def test_labels_that_are_none_are_refused(found, message):
    with pytest.raises(UserError, match=message):
        classifier_for(cases.model("bert"), found)


def test_an_encoder_without_a_pooler_gets_one():
    model = cases.model("bert", pooler=False, classification_head=False, masked_token_head=False)
    classifier = as_classifier(model, ("a", "b"))
    assert classifier.classify(mx.array([[1, 2, 3]])).shape == (1, 2)
