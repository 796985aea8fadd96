"""`prompt_cache=` and `save_prompt_cache=` of `generate.py` and `chat.py`."""

import pytest

from recipes import chat, generate
from tests.recipes.test_generate import save


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("cached")
    return {family: save(folder / family, family) for family in ("llama", "gpt", "bert")}


def test_a_prompt_goes_on_from_a_file(speak, checkpoints, tmp_path):
    checkpoint = f"checkpoint={checkpoints['llama']}"
    whole = speak(generate.main, checkpoint, "prompt=a long document, then a question")
    first = speak(generate.main, checkpoint, "prompt=a long document", f"save_prompt_cache={tmp_path}/first")
    assert first["text"] == speak(generate.main, checkpoint, "prompt=a long document")["text"]
    for _ in range(2):
        # It may be asked for as often as one likes, and go on into another file.
        more = [f"prompt_cache={tmp_path}/first", f"save_prompt_cache={tmp_path}/second"]
        second = speak(generate.main, checkpoint, "prompt=, then a", *more)
    assert second["reused_tokens"] == len("a long document")
    third = speak(generate.main, checkpoint, "prompt= question", f"prompt_cache={tmp_path}/second")
    assert third["text"] == whole["text"]
    # Nothing new is a continuation of what was read.
    assert speak(generate.main, checkpoint, "prompt=", f"prompt_cache={tmp_path}/first")["text"] == first["text"]


def test_a_chat_goes_on_from_a_file(speak, checkpoints, tmp_path):
    checkpoint, kept = f"checkpoint={checkpoints['llama']}", tmp_path / "chat"
    whole = speak(chat.main, checkpoint, said=b"one\ntwo\n")
    speak(chat.main, checkpoint, f"save_prompt_cache={kept}", said=b"one\n")
    rest = speak(chat.main, checkpoint, f"prompt_cache={kept}", f"save_prompt_cache={kept}", said=b"two\n")
    assert rest["messages"] == whole["messages"]
    assert (rest["turns"], rest["results"][0]["reused_tokens"]) == (2, whole["results"][1]["reused_tokens"])
    error = speak(chat.main, checkpoint, f"prompt_cache={kept}", "system=brief", said=b"two\n")
    assert "system must be null with prompt_cache=" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["checkpoint={llama}", "prompts=[a]", "prompt_cache={file}"], "prompt_cache must be null with prompts"),
        (["checkpoint={llama}", "prompts=[a]", "save_prompt_cache=x"], "save_prompt_cache must be null with prompts"),
        (["checkpoint={bert}", "prompt=[MASK]", "prompt_cache={file}"], "prompt_cache must be null"),
        (["checkpoint={gpt}", "prompt=a", "prompt_cache={file}"], "must be of this model"),
        (["checkpoint={llama}", "prompt=a", "attention=swa", "prompt_cache={file}"], "attention 'swa'"),
        (["checkpoint={llama}", "prompt=a", "prompt_cache={file}.not"], "it is missing"),
        (["checkpoint={llama}", "prompt=a", "prompt_cache="], "prompt_cache must be a path"),
        (["checkpoint={llama}", "prompt=a", "save_prompt_cache=/nowhere/x"], "in a folder that exists"),
        (["checkpoint={llama}", "prompt=a", "save_prompt_cache={llama}/config.json"], "it is another file"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, words, speak, checkpoints, tmp_path):
    file = tmp_path / "file"
    speak(generate.main, f"checkpoint={checkpoints['llama']}", "prompt=abc", f"save_prompt_cache={file}")
    error = speak(generate.main, *(each.format(file=file, **checkpoints) for each in arguments))
    assert isinstance(error, str)
    assert error.count("\n") == 1
    assert words in error


def test_a_text_is_no_chat(speak, checkpoints, tmp_path):
    checkpoint, file = f"checkpoint={checkpoints['llama']}", tmp_path / "file"
    speak(generate.main, checkpoint, "prompt=abc", f"save_prompt_cache={file}")
    assert "must be of a chat; it is of a text" in speak(chat.main, checkpoint, f"prompt_cache={file}", said=b"a")
