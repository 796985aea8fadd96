"""The claim of a drop-in replacement, by records of exchanges in trained models."""

import json

import pytest

from eval.suites.series import series
from tests.eval.claims.worlds import findings_of
from tests.eval.report.planted import quality_row


def look(name, *, difference=1e-6, layers=(0, 1), text="import os", data="stdlib"):
    damage = {"largest_logit_difference": difference, "kl_nats_per_token": difference}
    surgery = {"layers": list(layers), "num_layers": 2, "damage": damage, "greedy": {"text": text}}
    fields = {"task": "surgery", "metric": "kl_nats_per_token", "model": "smollm", "data": data, "regime": "checkpoint"}
    return quality_row(name, 0, difference, **fields, surgery=json.dumps(surgery), attention=series(name).attention)


def finding(*rows):
    return findings_of(rows, "drop-in")["drop-in"]


def test_exact_exchanges_of_every_layer_reproduce_it_and_what_computes_something_else_does_not_count():
    rows = [look("mha_tiled"), look("mha_manual", difference=3e-5), look("swa", difference=2.0, text="other")]
    found = finding(*rows)
    assert (found.verdict, found.value) == ("reproduced", 3e-5)
    assert set(found.evidence) == {row.identity for row in rows[:2]}
    assert "greedy texts equal" in found.ours


@pytest.mark.parametrize("fault", [{"difference": 2e-4}, {"layers": (1,)}, {"text": "import sys"}])
def test_a_moved_logit_a_layer_left_out_or_another_text_refutes_it(fault):
    assert finding(look("mha_tiled"), look("mha_manual", **fault)).verdict == "not reproduced"


def test_texts_after_other_prompts_need_not_be_equal():
    rows = [look("mha_tiled"), look("mha_manual", text="What does it do?", data="examples")]
    assert finding(*rows).verdict == "reproduced"


def test_a_swap_is_never_said_to_be_reproduced_without_rows_of_one():
    assert finding().verdict == "not measured"
    assert "no row is of a model whose attention was exchanged" in finding().reason
