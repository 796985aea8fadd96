import json

from recipes.app import execute
from recipes.variants import main
from zoo.attention.catalog import attention_names, variant


def listed(capsys, *arguments):
    code = execute("variants", main, arguments)
    captured = capsys.readouterr()
    return code, captured


def test_every_variant_is_listed_with_what_it_can_do(capsys):
    code, captured = listed(capsys)
    assert code == 0
    rows = {row["name"]: row for row in json.loads(captured.out.splitlines()[-1])["variants"]}
    assert tuple(rows) == attention_names()
    for name in attention_names():
        able = [part.capabilities for part in variant(name).variants()]
        assert rows[name]["capabilities"]["causal"] == all(each.causal for each in able)
        assert rows[name]["capabilities"]["bounded_cache"] == all(each.bounded_cache for each in able)
        assert name in captured.err
    assert (rows["mha"]["mechanism"], rows["mha"]["implementation"]) == ("softmax", "auto")
    assert (rows["mha_manual"]["mechanism"], rows["mha_manual"]["implementation"]) == ("softmax", "manual")
    assert rows["hybrid_swa"]["mechanism"] == "sliding_window+softmax"


def test_there_is_nothing_to_choose(capsys):
    code, captured = listed(capsys, "attention=mha")
    assert code == 2
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
