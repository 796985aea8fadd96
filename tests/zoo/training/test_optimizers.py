import itertools

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from tests.zoo.training.tiny import tiny_model, tiny_optimizer
from zoo.config import UserError
from zoo.training.optimizers import (
    OPTIMIZERS,
    learning_rate_schedule,
    optimizer_config_as_mapping,
    optimizer_config_from_mapping,
)

STEPS = 40


def rates(**choices):
    config = optimizer_config_from_mapping({"name": "adamw", "learning_rate": 0.5, **choices})
    schedule = learning_rate_schedule(config, config.learning_rate, STEPS)
    return [schedule(mx.array(step, mx.uint64)).item() for step in range(STEPS)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_rises_to_its_highest_and_falls_to_its_last(schedule):
    found = rates(schedule=schedule, warmup_fraction=0.2, final_fraction=0.1)
    assert found[:8] == pytest.approx([0.5 * (step + 1) / 8 for step in range(8)])
    assert found[8] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.5 if schedule == "constant" else 0.05)
    assert max(found) == pytest.approx(0.5)
    assert all(later <= earlier + 1e-7 for earlier, later in itertools.pairwise(found[8:]))
    middle = found[8 + (STEPS - 9) // 2]
    expected = {"cosine": 0.283, "linear": 0.282, "constant": 0.5}
    assert middle == pytest.approx(expected[schedule], abs=0.01)


def test_without_warm_up_the_first_step_has_the_highest_rate():
    assert rates(warmup_fraction=0.0)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_acts_on_matrices_alone(name):
    def step(decay):
        model = tiny_model(tie_word_embeddings=False)
        optimizer = tiny_optimizer(model, name, weight_decay=decay, warmup_fraction=0.0)
        model.update(tree_map(lambda array: array + 0.5, model.parameters()))
        optimizer.update(model, tree_map(lambda array: mx.full(array.shape, 1e-3), model.parameters()))
        return tree_flatten(model.parameters())

    for (path, free), (_, decayed) in zip(step(0.0), step(0.9), strict=True):
        matrix = free.ndim >= 2 and "embed" not in path and not (name == "muon" and "lm_head" in path)
        changed = mx.abs(free - decayed).max().item() > 1e-6
        assert changed == matrix, path


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw():
    model = tiny_model(tie_word_embeddings=False)
    optimizer = tiny_optimizer(model, "muon")
    muon, adamw = (dict(tree_flatten(part.state)) for part in optimizer.optimizers)
    matrices = {name.removesuffix(".v") for name in muon if name.endswith(".v")}
    rest = {name.removesuffix(".v") for name in adamw if name.endswith(".v")}
    assert matrices | rest == {path for path, _ in tree_flatten(model.parameters())}
    assert not matrices & rest
    assert "lm_head.weight" in rest
    assert "embed_tokens.weight" in rest
    assert all("self_attn" in path or "mlp" in path for path in matrices)
    assert len(matrices) == 2 * 6


def test_orthogonalised_update_has_equal_singular_values():
    model = tiny_model()
    optimizer = tiny_optimizer(model, "muon", weight_decay=0.0, warmup_fraction=0.0, momentum=0.0)
    before = np.array(model.layers[0].mlp.up_proj.weight)
    gradients = tree_map(lambda array: mx.random.normal(array.shape, key=mx.random.key(3)), model.parameters())
    optimizer.update(model, gradients)
    values = np.linalg.svd(np.array(model.layers[0].mlp.up_proj.weight) - before, compute_uv=False)
    # Five Newton–Schulz iterations bring singular values to about 0.7 … 1.2 of the learning rate, here scaled by shape.
    assert values.max() / values.min() < 2.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_config_survives_its_mapping(name):
    config = optimizer_config_from_mapping({"name": name, "learning_rate": 0.1, "schedule": "linear"})
    assert optimizer_config_from_mapping(optimizer_config_as_mapping(config)) == config


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "adamwx", "learning_rate": 1.0}, r"choices: adamw, lion, muon"),
        ({"name": ["adamw"], "learning_rate": 1.0}, r"name must be an optimizer; got \['adamw'\]"),
        ({"name": "adamw", "learning_rate": 0.0}, r"optimizer: learning_rate must be at least 1e-30; got 0.0"),
        ({"name": "adamw", "learning_rate": 1e300}, r"learning_rate must be at most 1e\+30; got 1e\+300"),
        ({"name": "adamw", "learning_rate": 1.0, "weight_decay": -0.1}, r"weight_decay must be at least 0.0"),
        ({"name": "adamw", "learning_rate": 1.0, "eps": 1e-300}, r"eps must be at least 1e-30"),
        ({"name": "adamw", "learning_rate": 1.0, "betas": [0.9, 1 - 1e-12]}, r"optimizer: betas must be"),
        ({"name": "muon", "learning_rate": 1.0, "ns_steps": 10**9}, r"ns_steps must be at most 100"),
        ({"name": "muon", "learning_rate": 1.0, "adamw_eps": 1e300}, r"adamw_eps must be at most 1.0"),
        ({"name": "adamw", "learning_rate": 1.0, "betas": [0.9, 1.0]}, r"optimizer: betas must"),
        ({"name": "lion", "learning_rate": 1.0, "eps": 1e-8}, r"optimizer: unknown key 'eps'"),
        ({"name": "muon", "learning_rate": 1.0, "schedule": "cosinus"}, r"cosine, linear, constant"),
    ],
)
def test_mistakes_are_named(mapping, message):
    with pytest.raises(UserError, match=message):
        optimizer_config_from_mapping(mapping)
