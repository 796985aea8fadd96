"""`evaluate.py` of a model that does not say how it was trained."""

import json

import pytest

from recipes.app import execute
from recipes.evaluate import main
from zoo.attention.catalog import variant_mapping
from zoo.checkpoints import save_checkpoint
from zoo.data.tokenizers import BytesTokenizer
from zoo.models import build_model, model_config_from_mapping


@pytest.mark.parametrize(("longest", "length"), [(4096, 512), (60, 60)])
def test_it_is_asked_in_rows_of_a_moderate_length(capsys, tmp_path, longest, length):
    sizes = {"num_layers": 1, "hidden_size": 20, "num_heads": 4, "head_dim": 6, "intermediate_size": 28}
    mapping = {"family": "llama", "vocab_size": 259, "max_seq_len": longest, **sizes}
    model = build_model(model_config_from_mapping({**mapping, "attention": variant_mapping("mha")}))
    checkpoint = save_checkpoint(tmp_path / "model", model=model, tokenizer=BytesTokenizer())
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(4):
        (texts / f"{number}.txt").write_text("what is read here is of no importance " * 40)
    other = ("data=text", f"data.path={texts}", f"data.cache_dir={tmp_path / 'cache'}", "data.validation_fraction=0.5")
    asked = [f"checkpoint={checkpoint}", "tasks=[extrapolation]", f"run_dir={tmp_path / 'rows'}", "compile=false"]
    code = execute("evaluate", main, [*asked, *other])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result = json.loads(captured.out.splitlines()[-1])
    assert min(each["length"] for each in result["tasks"]["extrapolation"]["details"]) == length
