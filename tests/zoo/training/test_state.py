import json
from typing import Any

import mlx.core as mx
import pytest

from zoo.config import UserError
from zoo.training.state import TrainingState, require_same_configuration

SAVED: dict[str, Any] = {
    "model": {"num_heads": 4, "layers": [{"name": "a"}]},
    "training": {"steps": 10, "batch_size": 8},
    "seed": 0,
}


def changed(section, **values):
    return {**SAVED, section: {**SAVED[section], **values}}


def test_state_survives_json_bit_for_bit():
    mx.random.seed(2**63 + 12345)
    mx.eval(mx.random.normal((3,)))
    state = TrainingState(step=7, window_nats=0.1 + 0.2, evaluation={"step": 5, "val_loss": 1 / 3})
    text = json.dumps(state.as_mapping())
    expected = mx.random.normal((5,))
    mx.random.seed(0)
    assert TrainingState.restore(json.loads(text)) == state
    assert mx.array_equal(mx.random.normal((5,)), expected).item()


def test_an_equal_configuration_is_accepted():
    require_same_configuration(SAVED, json.loads(json.dumps(SAVED)))


def test_limits_may_change():
    require_same_configuration(SAVED, changed("training", steps=20, loggers=["wandb"], max_seconds=3.0))


@pytest.mark.parametrize(
    ("current", "message"),
    [
        (changed("model", num_heads=5), "model.num_heads must stay 4 as in the run; got 5"),
        (changed("training", batch_size=9), "training.batch_size must stay 8"),
        (changed("model", layers=[{"name": "b"}]), "model.layers"),
        ({**SAVED, "seed": 1}, "seed must stay 0"),
        ({key: value for key, value in SAVED.items() if key != "seed"}, "seed must stay 0 as in the run; got None"),
    ],
)
def test_other_changes_are_refused_by_name(current, message):
    with pytest.raises(UserError, match=message) as caught:
        require_same_configuration(SAVED, current)
    assert "training.steps" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_choice_is_named_before_what_follows_from_it_and_a_digest_last():
    saved = {
        "model": {"attention": {"block_size": 4, "mechanism": "a", "name": "a"}},
        "data": {"fingerprint": "0", "path": "x"},
        "optimizer": {"betas": [0.8], "name": "adamw"},
    }
    attention = {"mechanism": "b", "name": "b", "window_size": 3}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"model": {"attention": attention}}, "resume: attention.name must stay 'a' as in the run; got 'b'"),
        ({"data": {"fingerprint": "1", "path": "y"}}, "resume: data.path must stay 'x'"),
        ({"data": {"fingerprint": "1", "path": "x"}}, "resume: the text of data, or its tokenizer, has changed since"),
        ({"optimizer": {"betas": [0.9], "name": "lion"}}, "resume: optimizer.name must stay 'adamw'"),
    ]
    for change, message in changes:
        with pytest.raises(UserError, match=message):
            require_same_configuration(saved, {**saved, **change})


DATA = {
    "path": "a",
    "packing": "stream",
    "identity": {"train": "1", "validation": "2"},
    "tokenizer": "t",
    "fingerprint": "f",
}
KNOWN = {"data": DATA, "tokenizer": {"kind": "pretrained", "path": "p"}}


def test_the_same_text_and_tokenizer_under_other_names_are_accepted():
    moved = {"data": {**DATA, "path": "b", "field": "x", "fingerprint": "g"}, "tokenizer": {"kind": "x", "path": "q"}}
    require_same_configuration(KNOWN, moved)


@pytest.mark.parametrize(
    ("current", "message"),
    [
        ({"identity": {"train": "0", "validation": "2"}}, "resume: the training text of data has changed since"),
        ({"identity": {"train": "1", "validation": "0"}}, "resume: the validation text of data has changed since"),
        ({"tokenizer": "u"}, "resume: the tokenizer has changed since"),
        ({"packing": "documents"}, "resume: data.packing must stay 'stream'"),
        ({"path": "b", "identity": {"train": "0", "validation": "0"}}, "resume: data.path must stay 'a'"),
    ],
)
def test_another_content_under_the_same_names_is_refused(current, message):
    with pytest.raises(UserError, match=message) as caught:
        require_same_configuration(KNOWN, {**KNOWN, "data": {**DATA, **current}})
    assert "run_dir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_an_identity_is_compared_by_its_fingerprint():
    old = {"data": {key: DATA[key] for key in ("path", "packing", "fingerprint")}, "tokenizer": KNOWN["tokenizer"]}
    require_same_configuration(old, KNOWN)
    require_same_configuration(old, {**KNOWN, "data": {**DATA, "path": "b"}})
    for change in ({"packing": "documents"}, {"fingerprint": "g"}):
        with pytest.raises(UserError, match="resume: "):
            require_same_configuration(old, {**KNOWN, "data": {**DATA, **change}})
