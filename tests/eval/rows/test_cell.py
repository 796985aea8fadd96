import pytest
from pydantic import ValidationError

from tests.eval.rows_factory import plain_cell

CELL = plain_cell()
OTHERS = {
    "suite": "t",
    "group": "g",
    "builder": "layer",
    "variant": "swa",
    "attention": "{}",
    "role": "baseline",
    "level": "layer",
    "mode": "step",
    "model": "gpt_tiny",
    "batch_size": 3,
    "length": 65,
    "num_heads": 7,
    "num_kv_heads": 1,
    "head_dim": 17,
    "hidden_size": 9,
    "causal": False,
    "dtype": "bfloat16",
    "compiled": False,
    "execution": "throughput",
    "seed": 1,
    "detail": "native",
}


def test_every_field_of_a_cell_is_tried():
    assert set(OTHERS) == set(type(CELL).model_fields)


@pytest.mark.parametrize("field", OTHERS)
def test_cells_that_differ_in_one_field_have_different_names(field):
    assert CELL.model_copy(update={field: OTHERS[field]}).identity != CELL.identity


def test_a_cells_name_is_the_same_in_every_process_and_version():
    # Stored rows are found again by this name: whoever changes it, orphans them.
    assert CELL.identity == CELL.identity
    assert type(CELL).model_validate_json(CELL.model_dump_json()).identity == CELL.identity


def test_a_cell_does_not_change_and_takes_no_unknown_key():
    with pytest.raises(ValidationError, match="frozen"):
        CELL.length = 65
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(CELL).model_validate({**CELL.model_dump(), "colour": "red"})


def test_a_cell_without_attention_says_so():
    with pytest.raises(ValueError, match="'mha' of suite 's' has no attention"):
        _ = CELL.attention_mapping
