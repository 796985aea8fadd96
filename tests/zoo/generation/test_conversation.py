"""Chats: what a turn reads, what is kept, and where an answer ends."""

from typing import Any

import pytest

from tests.zoo.generation.models import TOKENIZER, decodable, tiny_model
from tests.zoo.generation.scripted import EOS, PieceTokenizer, chain
from zoo.attention.catalog import variant
from zoo.config import UserError
from zoo.generation import Context, Conversation, GenerationConfig, generate_text


class LetterTemplate:
    """Each message as its role's first letter, its text and an x; answers begin with an a."""

    def render(self, messages: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        said = "".join(f"{message['role'][0]}{message['content']}x" for message in messages)
        return said + "a" * add_generation_prompt

    def close(self) -> None:
        pass


class ChatTokenizer(PieceTokenizer):
    """Pieces, and a template or none; the tokens of `special` have no text."""

    def __init__(self, *pieces: str, template: Any = None, special: str = "") -> None:
        super().__init__(*pieces)
        self.template = template
        self.token_bytes_V = [b"" if piece in (EOS, special) else piece.encode() for piece in self.pieces]

    def chat_template(self) -> Any:
        return self.template

    def encode_marked(self, text: str) -> list[int]:
        return self.encode(text)


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def converse(model, tokenizer, *turns, system=None, **choices):
    """The conversation, and the results of its turns."""
    config = GenerationConfig(max_tokens=7, **choices)
    conversation = Conversation(model, tokenizer, config, Context(model, returns=True), system)
    results = [[*conversation.answer(turn)][-1].result for turn in turns]
    return conversation, results


def one_each() -> list[str]:
    """A variant for each function that attention can compute: caches do not depend on the implementation."""
    found = {
        tuple(each.capabilities.exact_class for each in variant(name).variants()): name
        for name in reversed(decodable())
    }
    return list(found.values())


@pytest.mark.parametrize("name", one_each())
def test_an_answer_is_that_of_the_whole_conversation_read_anew(name):
    model = tiny_model(name)
    tokenizer = ChatTokenizer(*LETTERS, template=LetterTemplate())
    turns = ("hello", "q", "again and again".replace(" ", ""))
    conversation, results = converse(model, tokenizer, *turns, system="brief")
    said = conversation.messages
    assert [message["role"] for message in said] == ["system", *["user", "assistant"] * 3]
    for number, result in enumerate(results):
        before = LetterTemplate().render(said[: 2 + 2 * number], add_generation_prompt=True)
        config = GenerationConfig(max_tokens=7)
        assert generate_text(model, TOKENIZER, TOKENIZER.encode(before), config).text == result.text
    # Nothing that was read is read again.
    last = TOKENIZER.encode(LetterTemplate().render(said[-3:-1], add_generation_prompt=True))
    assert results[2].prompt_tokens <= len(last)


@pytest.mark.parametrize("name", ["mha", "swa", "sinks", "linear", "gated_delta"])
def test_an_answer_that_is_not_kept_as_it_was_written_is_forgotten_and_read_again(name):
    model = tiny_model(name)
    tokenizer = ChatTokenizer(*LETTERS, template=LetterTemplate())
    whole = converse(model, tokenizer, "hello")[0].messages[-1]["content"]
    # What follows the stop text has been read, and is no part of what was said.
    conversation, (first, second) = converse(model, tokenizer, "hello", "q", stop=(whole[3:5],))
    assert first.text == whole[: whole.index(whole[3:5])]
    before = LetterTemplate().render(conversation.messages[:3], add_generation_prompt=True)
    config = GenerationConfig(max_tokens=7, stop=(whole[3:5],))
    assert generate_text(model, TOKENIZER, TOKENIZER.encode(before), config).text == second.text
    # Caches that cannot forget go back to the end of the prompt, which they keep.
    assert conversation.reused_tokens >= len("uhellox")


def test_without_a_template_messages_are_one_text():
    tokenizer = ChatTokenizer("one", " two", " three", "\n", "four", " five")
    model = chain(tokenizer, "one two three", "four five")
    conversation, results = converse(model, tokenizer, "one two", "four")
    assert [message["content"] for message in conversation.messages] == ["one two", " three", "four", " five"]
    # The end of the document is no part of what was said, and this cache forgets nothing but the whole answer.
    assert [result.prompt_tokens for result in results] == [2, 4]
    assert conversation.reused_tokens == 1


def test_an_answer_ends_where_the_template_ends_one():
    class Ending(LetterTemplate):
        def render(self, messages, *, add_generation_prompt=False):
            return "".join(f"{message['content']}</s>" for message in messages)

    tokenizer = ChatTokenizer(*"abcdefghijklmnopqrstuvwxyz ", "</s>", template=Ending(), special="</s>")
    model = chain(tokenizer, "ab</s>cd")
    model._scores = model._scores.at[tokenizer.pieces.index("</s>"), tokenizer.pieces.index("a")].add(50.0)
    conversation, (result,) = converse(model, tokenizer, "x")
    assert (result.text, result.finish_reason) == ("ab", "eos")
    assert conversation.messages[-1]["content"] == "ab"


def test_a_turn_that_cannot_be_read_changes_nothing():
    model = tiny_model("mha", family="gpt", max_seq_len=20)
    tokenizer = ChatTokenizer(*LETTERS, template=LetterTemplate())
    conversation, _ = converse(model, tokenizer, "abc")
    before = list(conversation.messages)
    with pytest.raises(UserError, match=r"fewer tokens than model\.max_seq_len = 20"):
        list(conversation.answer("abcdefghijklm"))
    assert conversation.messages == before
