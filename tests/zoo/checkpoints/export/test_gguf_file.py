"""GGUF files that are written here come back with equal logits, but for float16, and equal tokens."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tests.zoo.checkpoints.huggingface.references import PRETRAINED, model_folder
from tests.zoo.checkpoints.saved import small_model
from tests.zoo.data.listed import SOURCE, ListedCorpus
from zoo.checkpoints import load_checkpoint
from zoo.checkpoints.export.gguf_file import write_gguf
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer, SentencePieceConfig

GGUF = PRETRAINED.parent / "gguf"
ROW_BL = mx.array([[7, 3, 1, 20, 33, 2, 5, 5, 9]])
TEXT = "def f(x):\n    return x[12:345]  # it's\t漢字 🙂 <0x41>"


def halved(model):
    """The weights as float16 holds them; norms stay."""
    rounded = [
        (name, array.astype(mx.float16).astype(mx.float32) if array.ndim > 1 else array)
        for name, array in tree_flatten(model.parameters())
    ]
    model.load_weights(rounded)
    return model


def sentence_piece(folder):
    return SentencePieceConfig(vocab_size=530).build(ListedCorpus([SOURCE] * 3), cache_dir=folder)


@pytest.mark.parametrize("make", [lambda _: BytesTokenizer(), sentence_piece], ids=["bytes", "sentencepiece"])
@pytest.mark.parametrize("choices", [{}, {"qk_norm": True}, {"qkv_bias": True}, {"tie_word_embeddings": True}])
def test_a_model_that_was_trained_here_comes_back(make, choices, tmp_path):
    tokenizer = make(tmp_path).with_chat_template("{{ messages[0].content }}")
    model = small_model(family="llama", num_kv_heads=2, vocab_size=tokenizer.vocab_size + 3, **choices)
    write_gguf(tmp_path / "out.gguf", model, tokenizer)
    again = load_checkpoint(tmp_path / "out.gguf")
    assert mx.array_equal(again.model(ROW_BL), halved(model)(ROW_BL))
    assert again.tokenizer.encode_prompt(TEXT) == tokenizer.encode_prompt(TEXT)
    assert again.tokenizer.end_ids == tokenizer.end_ids
    assert again.tokenizer.chat_template().source == f"{tokenizer.eos_text}{{{{ messages[0].content }}}}"


@pytest.mark.parametrize("path", [GGUF / "llama_f16.gguf", GGUF / "qwen2_q8_0.gguf", model_folder("llama")], ids=str)
def test_what_was_read_comes_back(path, tmp_path):
    loaded = load_checkpoint(path)
    if "q8" in path.name:
        from zoo.checkpoints.schemes import dequantize_weights

        dequantize_weights(loaded.model)
    write_gguf(tmp_path / "out.gguf", loaded.model, loaded.tokenizer)
    again = load_checkpoint(tmp_path / "out.gguf")
    assert mx.array_equal(again.model(ROW_BL), halved(loaded.model)(ROW_BL))
    assert again.tokenizer.encode_prompt("the hat, and in") == loaded.tokenizer.encode_prompt("the hat, and in")
    assert (again.tokenizer.end_ids, again.tokenizer.start_id) == (loaded.tokenizer.end_ids, loaded.tokenizer.start_id)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"attention": "linear"}, "architecture attention_zoo"),
        ({"attention": "swa"}, "sliding windows"),
        ({"activation": "relu"}, "activation relu"),
        ({"mlp_bias": True}, "biases of feed-forward layers"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rotary positions scaled by dynamic"),
        ({"family": "gpt", "head_dim": 3}, "architecture gpt2"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(choices, said, tmp_path):
    with pytest.raises(UserError, match=said):
        write_gguf(tmp_path / "out.gguf", small_model(**{"family": "llama", **choices}), BytesTokenizer())
    assert not list(tmp_path.iterdir())
