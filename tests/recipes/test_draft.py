"""`draft_checkpoint=` and `kv_bits=` of `generate.py` and `chat.py`."""

import pytest

from recipes import chat, generate
from tests.recipes.test_generate import save
from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint
from zoo.data.tokenizers import PretrainedTokenizer


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("drafts")
    other = PretrainedTokenizer(byte_level_checkpoint(folder / "tokenizer"))
    saved = {family: save(folder / family, family) for family in ("llama", "gpt", "bert")}
    return {**saved, "other": save(folder / "other", "llama", other)}


def test_a_draft_changes_nothing_but_the_effort(speak, checkpoints, tmp_path):
    plain = [f"checkpoint={checkpoints['llama']}", "prompt=abc"]
    draft = [f"draft_checkpoint={checkpoints['gpt']}", "num_draft_tokens=2"]
    one, other = (
        speak(generate.main, *plain),
        speak(generate.main, *plain, *draft, f"save_prompt_cache={tmp_path}/kept"),
    )
    assert one["text"] == other["text"]
    assert other["draft_tokens"] >= other["accepted_draft_tokens"] >= 0
    assert other["draft_tokens"] > 0
    assert "draft_tokens" not in one
    # A cache that was kept with a draft goes on without one, and the other way round.
    for more in ([], draft):
        again = speak(generate.main, plain[0], "prompt=", f"prompt_cache={tmp_path}/kept", *more)
        assert again["text"] == one["text"]


def test_a_chat_with_a_draft_says_the_same(speak, checkpoints):
    plain = [f"checkpoint={checkpoints['llama']}", f"draft_checkpoint={checkpoints['llama']}"]
    one, other = (speak(chat.main, *each, said=b"one\ntwo\n") for each in (plain[:1], plain))
    assert one["messages"] == other["messages"]
    assert other["draft_tokens"] > 0


def test_keys_and_values_of_few_bits_take_fewer_bytes(speak, tmp_path):
    checkpoint = f"checkpoint={save(tmp_path / 'wide', 'llama', head_dim=32)}"
    plain = speak(generate.main, checkpoint, "prompt=abc")
    few = speak(generate.main, checkpoint, "prompt=abc", "kv_bits=4")
    assert few["generated_tokens"] == plain["generated_tokens"]
    assert few["cache_bytes"] * 32 == plain["cache_bytes"] * 6
    said = speak(chat.main, checkpoint, "kv_bits=4", "kv_group_size=32", said=b"a\n")
    assert said["cache_bytes"] == few["cache_bytes"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prompts=[a]", "draft_checkpoint={gpt}"], "draft_checkpoint must be null with prompts"),
        (["prompt=a", "draft_checkpoint={other}"], "must have the tokenizer of checkpoint"),
        (["prompt=a", "draft_checkpoint={bert}"], "must hold a language model"),
        (["prompt=a", "draft_checkpoint={gpt}", "attention=swa"], "attention 'swa' keeps a RotatingKVCache"),
        (["prompt=a", "draft_checkpoint=/nowhere"], "/nowhere"),
        (["prompt=a", "draft_checkpoint={gpt}", "num_draft_tokens=0"], "num_draft_tokens must be at least 1"),
        (["prompts=[a]", "kv_bits=4"], "kv_bits must be null with prompts"),
        (["prompt=a", "kv_bits=5"], "kv_bits must be a number of bits that caches have; got 5 (choices: 2, 4, 8)"),
        (["prompt=a", "kv_group_size=32"], "kv_group_size must be null without kv_bits; got 32"),
        (["prompt=a", "kv_bits=4"], "kv_group_size must divide the model's head_dim = 6"),
        (["prompt=a", "kv_bits=4", "attention=linear"], "kv_bits must be null with attention 'linear'"),
    ],
)
def test_what_does_not_go_together_is_one_line(arguments, words, speak, checkpoints):
    chosen = [each.format(**checkpoints) for each in arguments]
    error = speak(generate.main, f"checkpoint={checkpoints['llama']}", *chosen)
    assert isinstance(error, str)
    assert error.count("\n") == 1
    assert words in error
