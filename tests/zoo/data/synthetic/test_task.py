"""The laws of every synthetic task."""

import numpy as np
import pytest

from tests.zoo.data.synthetic.cases import TASKS
from zoo.config import UserError
from zoo.data.loader import Batch, ProcessShare
from zoo.data.synthetic import SYNTHETIC_TASKS, SyntheticLoader, synthetic_task_from_mapping
from zoo.data.synthetic.task import BLANK

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
every_shipped_task = pytest.mark.parametrize("task", [kind() for kind in SYNTHETIC_TASKS.values()], ids=SYNTHETIC_TASKS)


def rows_of(batch: Batch) -> set[bytes]:
    return {row.tobytes() for row in np.concatenate([batch.inputs_BL, batch.targets_BL[:, -1:]], axis=1)}


def assert_equal(left: Batch, right: Batch) -> None:
    for field in ("inputs_BL", "targets_BL", "weights_BL"):
        np.testing.assert_array_equal(getattr(left, field), getattr(right, field))


def test_every_task_has_a_case():
    assert TASKS.keys() == SYNTHETIC_TASKS.keys()


@every_task
def test_rows_are_sequences_of_the_vocabulary_whose_answers_have_weight_one(task):
    batch = SyntheticLoader(task, batch_size=60, seed=3).batch(0)
    tokens = np.concatenate([batch.inputs_BL, batch.targets_BL[:, -1:]], axis=1)
    assert batch.inputs_BL.shape == (60, task.length)
    dtypes = [array.dtype.name for array in (batch.inputs_BL, batch.targets_BL, batch.weights_BL)]
    assert dtypes == ["int32", "int32", "float32"]
    assert (batch.inputs_BL[:, 1:] == batch.targets_BL[:, :-1]).all()
    assert tokens.min() >= 0
    assert tokens.max() == task.vocab_size - 1
    assert set(np.unique(batch.weights_BL)) == {0, 1}
    assert (batch.weights_BL.sum(axis=1) > 0).all()
    assert (batch.segments_BL, batch.lengths_B) == (None, None)


@every_task
def test_no_answer_can_be_had_from_fewer_tokens_than_all_before_it(task):
    """An answer is a token that the row has already shown: that is what there is to recall."""
    batch = SyntheticLoader(task, batch_size=60, seed=3).batch(0)
    for row, position in np.argwhere(batch.weights_BL == 1):
        assert batch.targets_BL[row, position] in batch.inputs_BL[row, :position]


@every_task
def test_the_batch_of_a_step_depends_on_seed_and_step_alone(task):
    loader = SyntheticLoader(task, batch_size=6, seed=3)
    later = loader.batch(5)
    for step in (0, 1):
        loader.batch(step)
    assert_equal(later, loader.batch(5))
    assert_equal(later, SyntheticLoader(task, batch_size=6, seed=3).batch(5))
    for other in (SyntheticLoader(task, batch_size=6, seed=4).batch(5), loader.batch(6)):
        assert (later.inputs_BL != other.inputs_BL).any()


@every_task
def test_processes_share_the_very_batch_of_one(task):
    whole = SyntheticLoader(task, batch_size=6, seed=3).batch(2)
    parts = [
        SyntheticLoader(task, batch_size=6, seed=3, share=ProcessShare(rank=rank, world_size=2)).batch(2)
        for rank in range(2)
    ]
    np.testing.assert_array_equal(whole.inputs_BL, np.concatenate([part.inputs_BL for part in parts]))


@every_task
def test_validation_and_test_rows_depend_on_no_seed(task):
    setting = task.settings()[-1]
    for one, other in zip(*(_held_out(task, seed, setting) for seed in (0, 9)), strict=True):
        assert_equal(one, other)


def _held_out(task, seed, setting):
    yield from SyntheticLoader(task, batch_size=4, seed=seed).validation_batches()
    yield from task.test_batches(setting, batch_size=4, num_batches=2)


@every_task
def test_validation_looks_at_each_of_its_rows_once(task):
    batches = list(SyntheticLoader(task, batch_size=4, seed=0).validation_batches())
    counted = [(batch.weights_BL.sum(axis=1) > 0).tolist() for batch in batches]
    assert counted == [[True] * 4, [True] * 4, [True, True, True, False]]
    assert len(list(SyntheticLoader(task, batch_size=4, seed=0).validation_batches(2))) == 2


@every_shipped_task
def test_training_validation_and_test_share_no_row(task):
    """At the shipped sizes, where no two rows are alike by chance: over seeds, steps and settings."""
    training = [SyntheticLoader(task, batch_size=128, seed=seed).batch(step) for seed in (0, 1, 2) for step in (0, 1)]
    validation = list(SyntheticLoader(task, batch_size=128, seed=0).validation_batches())
    # A mixed setting has rows of all lengths, as training and validation have.
    test = task.test_batches({}, batch_size=128, num_batches=4)
    sets = [set().union(*(rows_of(batch) for batch in batches)) for batches in (training, validation, test)]
    assert [len(each) for each in sets] == [6 * 128, len(validation) * 128, 4 * 128]
    assert len(set().union(*sets)) == sum(len(each) for each in sets)


@every_task
def test_a_setting_is_kept_by_every_row(task):
    for setting in task.settings():
        (batch,) = task.test_batches(setting, batch_size=8, num_batches=1)
        assert batch.inputs_BL.shape == (8, setting["length"])
        # Each answer in place, none of a shorter row's.
        assert len(set(batch.weights_BL.sum(axis=1))) == 1


@every_task
def test_shorter_rows_end_in_blanks_without_weight(task):
    batch = SyntheticLoader(task, batch_size=30, seed=3).batch(0)
    for index, length in enumerate(task.lengths[:-1]):
        rows = slice(index, None, len(task.lengths))
        assert (batch.inputs_BL[rows, length + 1 :] == BLANK).all()
        assert (batch.weights_BL[rows, length:] == 0).all()


@every_task
def test_a_task_comes_back_from_its_mapping_and_its_fingerprint_names_it(task):
    again = synthetic_task_from_mapping(task.as_mapping())
    assert again == task
    assert again.fingerprint == task.fingerprint
    assert task.at({"length": task.shorter_lengths[0]}).fingerprint != task.fingerprint


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"corpus": "mqar", "num_pairs": [33]}, r"data: num_pairs must lie in \[1, 31\] for rows of 128 tokens"),
        ({"corpus": "mqar", "num_pairs": []}, "num_pairs must lie in"),
        ({"corpus": "mqar", "num_pairs": [4], "vocab_size": 5}, r"num_pairs must lie in \[1, 2\]"),
        ({"corpus": "copying", "shorter_lengths": [2]}, "length must be at least 3"),
        ({"corpus": "copying", "vocab_size": 64}, "vocab_size must be at least 65"),
        ({"corpus": "induction", "vocab_size": 2}, "vocab_size must be above 2"),
        ({"corpus": "induction", "num_repeats": 16}, r"num_repeats must lie in \[1, 15\] for rows of 32 tokens"),
        ({"corpus": "needle", "depth": [1.5]}, "depth must lie between 0 and 1"),
        ({"corpus": "needle", "passkey_tokens": 16}, r"passkey_tokens must lie in \[1, 15\]"),
        ({"corpus": "selective_copying", "num_symbols": 0}, r"num_symbols must lie in \[1, 16\]"),
        ({"corpus": "needle", "shorter_lengths": [128]}, r"shorter_lengths must be different lengths in \[1, 128\)"),
        ({"corpus": "needle", "length": 0}, "length must be at least 1"),
        ({"corpus": "needle", "validation_rows": 0}, "validation_rows must be at least 1"),
        ({"corpus": "needle", "depths": [1]}, "unknown key 'depths'; did you mean 'depth'"),
        ({"corpus": "haystack"}, "corpus must be a synthetic task; got 'haystack'"),
    ],
)
def test_an_impossible_task_is_refused_with_what_would_be_possible(mapping, message):
    with pytest.raises(UserError, match=message):
        synthetic_task_from_mapping(mapping)


def test_a_setting_outside_the_axes_is_refused():
    task = TASKS["mqar"]
    with pytest.raises(UserError, match=r"mqar: no axis is called 'depth' \(choices: num_pairs, length\)"):
        task.at({"depth": 0.5})
    with pytest.raises(UserError, match="mqar: num_pairs must lie in"):
        task.at({"num_pairs": 99})
    with pytest.raises(UserError, match=r"mqar.num_pairs\[0\] must be a whole number"):
        task.at({"num_pairs": 1.5})


@pytest.mark.parametrize(("batch_size", "share"), [(0, None), (3, ProcessShare(rank=0, world_size=2))])
def test_batches_that_cannot_be_shared_are_refused(batch_size, share):
    with pytest.raises(UserError, match="batch_size must be a multiple of"):
        SyntheticLoader(TASKS["mqar"], batch_size=batch_size, seed=0, share=share)
