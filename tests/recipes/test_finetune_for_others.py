"""What a run of `finetune.py` leaves for PEFT and mlx-lm where their modules have other names."""

import mlx.core as mx

from recipes.app import execute
from recipes.finetune import main
from tests.recipes.test_finetune import TINY, build
from zoo import load_model
from zoo.checkpoints import save_checkpoint
from zoo.checkpoints.foreign_adapters import load_adapters
from zoo.data.tokenizers import BytesTokenizer


def test_a_run_of_a_gpt_2_leaves_its_adapters_for_peft_and_for_the_stock_model_in_mlx_lm(text_corpus, tmp_path):
    stock = {"family": "gpt", "num_kv_heads": None, "intermediate_size": 128, "activation": "gelu_tanh"}
    gpt = save_checkpoint(tmp_path / "gpt", model=build(**stock), tokenizer=BytesTokenizer())
    places = [
        f"run_dir={tmp_path / 'run'}",
        "data=text",
        f"data.path={text_corpus}",
        f"data.cache_dir={tmp_path / 'c'}",
    ]
    assert execute("finetune", main, [f"checkpoint={gpt}", *TINY, *places, "method=lora"]) == 0
    tokens = mx.array([[5, 7, 9]])
    found = load_model(tmp_path / "run")[0](tokens)
    assert mx.abs(found - load_model(gpt)[0](tokens)).max() > 1e-4
    for name in ("peft", "mlx_lm"):
        model, _ = load_model(gpt)
        load_adapters(model, tmp_path / "run" / name, base=str(gpt))
        assert mx.abs(model(tokens) - found).max() < 1e-5, name
