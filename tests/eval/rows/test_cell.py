import pytest
from pydantic import ValidationError

from eval.rows import Cell
from tests.eval.rows_factory import plain_cell

CELL = plain_cell()


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("field", Cell.model_fields)
def test_cells_that_differ_in_one_field_have_different_names(field):
    assert CELL.model_copy(update={field: "another"}).identity != CELL.identity


def test_a_cells_name_is_the_same_in_every_process_and_version():
    # Stored rows are found again by this name: whoever changes it, orphans them.
    assert Cell.model_validate_json(CELL.model_dump_json()).identity == CELL.identity == "cf3588888a3ff1fd"


def test_a_cell_does_not_change_and_takes_no_unknown_key():
    with pytest.raises(ValidationError, match="frozen"):
        CELL.length = 65
    with pytest.raises(ValidationError, match="Extra inputs"):
        Cell.model_validate({**CELL.model_dump(), "colour": "red"})


def test_a_cell_without_attention_says_so():
    with pytest.raises(ValueError, match="'mha' of suite 's' has no attention"):
        _ = CELL.attention_mapping
