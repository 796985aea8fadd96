"""`scripts/chat.py`: lines in, answers out, then one JSON line; Ctrl-C and the end of stdin as people expect them."""

import io
import json
import os
import signal
import sys

import pytest

from recipes.app import execute
from recipes.chat import main
from tests.recipes.test_generate import BYTES, save
from tests.zoo.generation.test_conversation import LetterTemplate
from zoo.checkpoints import load_model
from zoo.data.tokenizers import BytesTokenizer
from zoo.generation import Context, Conversation, GenerationConfig
from zoo.generation.row import Row


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("chat") / "llama", "llama")


@pytest.fixture
def chat(capsys, monkeypatch):
    """Runs the recipe on what is said; gives (code, text on stdout, JSON object or None, text on stderr)."""

    def call(said: bytes, *arguments: str):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
        code = execute("chat", main, [*arguments, "temperature=0", "max_tokens=9"])
        captured = capsys.readouterr()
        if code:
            return code, captured.out, None, captured.err
        shown, _, last = captured.out.removesuffix("\n").rpartition("\n")
        return code, shown, json.loads(last), captured.err

    return call


def test_each_line_is_a_turn_and_the_last_line_is_the_contract(chat, llama, caplog):
    code, shown, result, error = chat("é?\r\n\n  \nwhy".encode(), f"checkpoint={llama}", "system=be\\nbrief")
    assert code == 0, error
    assert "the checkpoint has no chat template" in caplog.text
    said = [message["content"] for message in result["messages"]]
    assert said[::2] == ["be\nbrief", result["results"][0]["text"], result["text"]]
    assert said[1::2] == ["é?", "why"]
    assert (result["turns"], result["interrupted"], result["has_template"]) == (2, False, False)
    assert result["cache_bytes"] > 0
    model, tokenizer = load_model(llama)
    conversation = Conversation(
        model, tokenizer, GenerationConfig(max_tokens=9), Context(model, returns=True), "be\nbrief"
    )
    texts = ["".join(piece.text for piece in conversation.answer(line)) for line in ("é?", "why")]
    assert shown == "\n".join(text.removesuffix("\n") for text in texts)
    assert [row["text"] for row in result["results"]] == texts


def test_what_was_said_is_not_read_again(chat, llama, monkeypatch):
    monkeypatch.setattr(BytesTokenizer, "chat_template", lambda _: LetterTemplate())
    _, _, result, _ = chat(b"hello\nq\n", f"checkpoint={llama}", "stop_at_eos=false")
    assert result["has_template"] is True
    first, second = result["results"]
    # A token stands before the text.
    assert (first["prompt_tokens"], first["reused_tokens"]) == (1 + len("uhelloxa"), 0)
    assert second["reused_tokens"] >= len("uhelloxa")
    assert second["prompt_tokens"] + second["reused_tokens"] == 1 + len(f"uhelloxa{first['text']}xuqxa".encode())


@pytest.mark.parametrize(
    ("signals", "answers"),
    [
        # In the third token of the first answer: it ends, and the next line is answered.
        ({(1, 3): [signal.SIGINT]}, ["interrupted", "max_tokens"]),
        ({(1, 3): [signal.SIGTERM]}, ["interrupted"]),
        ({(2, 2): [signal.SIGINT]}, ["max_tokens", "interrupted"]),
        ({(2, 2): [signal.SIGINT, signal.SIGINT]}, ["max_tokens"]),
    ],
)
def test_one_ctrl_c_ends_an_answer_and_a_second_one_the_chat(signals, answers, chat, llama, monkeypatch):
    rows: list[Row] = []

    def count_and_stop(row, token, **facts):
        if row not in rows:
            rows.append(row)
        for number in signals.get((len(rows), row._count + 1), ()):
            os.kill(os.getpid(), number)
        return add(row, token, **facts)

    add = Row.add
    monkeypatch.setattr(Row, "add", count_and_stop)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    code, shown, result, error = chat(b"one\ntwo\n", f"checkpoint={llama}", "stop_at_eos=false")
    assert code == 0, error
    assert [row["finish_reason"] for row in result["results"]] == answers
    ended_early = len(signals.get((2, 2), ())) == 2 or signal.SIGTERM in signals.get((1, 3), ())
    assert result["interrupted"] is ended_early
    assert result["turns"] == len([message for message in result["messages"] if message["role"] == "assistant"])
    # What had been said of an answer that ended the chat is kept too.
    assert result["text"] in shown
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_chat_in_which_nothing_is_said_is_no_mistake(chat, llama):
    code, shown, result, _ = chat(b"", f"checkpoint={llama}")
    assert (code, shown) == (0, "")
    assert (result["text"], result["turns"], result["messages"]) == ("", 0, [])


@pytest.mark.parametrize(
    ("said", "arguments", "words"),
    [
        (b"a\n\xff\n", [], ["stdin must hold UTF-8", "turn 2, byte 1"]),
        (b"a\n", ["checkpoint=/nowhere"], ["/nowhere"]),
        (b"a\n", ["checkpoint="], ["checkpoint must be"]),
        (b"a\n", ["prompt=a"], ["prompt", "chat"]),
    ],
)
def test_mistakes_are_one_line_that_names_them(said, arguments, words, chat, llama):
    code, _, _, error = chat(said, f"checkpoint={llama}", *arguments)
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), error
    assert all(word in lines[0] for word in words), error


def test_an_encoder_and_a_closed_stdin_are_refused(chat, tmp_path, llama, monkeypatch):
    bert = save(tmp_path / "bert", "bert", BYTES)
    assert "must hold a language model to chat with; got a bert model" in chat(b"a\n", f"checkpoint={bert}")[3]
    monkeypatch.setattr(io, "TextIOWrapper", lambda _: None)
    code, _, _, error = chat(b"", f"checkpoint={llama}")
    assert code == 2
    assert "stdin must be open" in error
