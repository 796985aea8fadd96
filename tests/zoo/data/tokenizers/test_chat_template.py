"""Chat templates: rendered as transformers does it, and bounded whatever a stranger wrote."""

import pytest

from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint
from zoo.config import UserError
from zoo.data.tokenizers import BytesTokenizer, ChatTemplate, PretrainedTokenizer, chat_template

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "system", "content": "brief"}, {"role": "user", "content": " é? "}]


@pytest.fixture(scope="module")
def worker():
    """One process for all templates: starting one takes a second."""
    template = ChatTemplate("", {})
    template.render([])
    yield template
    template.close()


@pytest.fixture
def render(worker):
    def call(source, messages=MESSAGES, **options):
        worker.source, worker._variables = source, {"bos_token": "<s>"}
        return worker.render(messages, **options)

    return call


def test_a_template_is_rendered_with_messages_special_tokens_and_tools(render):
    text = "<|im_start|>system\nbrief<|im_end|>\n<|im_start|>user\né?<|im_end|>\n"
    assert render(CHATML) == text
    assert render(CHATML, add_generation_prompt=True) == f"{text}<|im_start|>assistant\n"
    assert render("{{ bos_token }}{{ tools | tojson }}", tools=[{"name": "é"}]) == '<s>[{"name": "é"}]'
    # Tags that transformers knows and Jinja does not.
    assert render("{% generation %}a{% endgeneration %}{% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}") == "a1"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for each in messages %}", "endfor"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 'a' * 10**10 }}", "MB"),
        ("{{ messages[7].content }}", "no element 7"),
    ],
)
def test_a_template_that_fails_is_one_line_and_the_next_one_is_rendered(source, reason, render):
    with pytest.raises(UserError, match=f"^checkpoint: the chat template must render these messages; .*{reason}"):
        render(source)
    assert render("{{ messages[1].content }}") == " é? "


def test_a_template_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(chat_template, "_SECONDS", 0.3)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match=r"^checkpoint: the chat template must be rendered within 0\.3 seconds"):
        ChatTemplate(loop, {}).render(MESSAGES)


def test_a_text_of_any_length_is_not_taken(render, monkeypatch):
    monkeypatch.setattr(chat_template, "_LONGEST_TEXT", 2**10)
    with pytest.raises(UserError, match="at most 1024 bytes"):
        render("{{ 'a' * 2000 }}")


def test_a_checkpoint_brings_its_template_and_special_tokens_are_read_as_such(render, tmp_path):
    folder = byte_level_checkpoint(tmp_path / "gpt")
    assert PretrainedTokenizer(folder).chat_template() is None
    assert BytesTokenizer().chat_template() is None
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{{ eos_token }}", encoding="utf-8")
    tokenizer = PretrainedTokenizer(folder)
    template = tokenizer.chat_template()
    assert template is not None
    assert template._variables["eos_token"] == "<|endoftext|>"
    text = render(template.source.replace("eos_token", "'<|endoftext|>'"), [{"content": "def<|endoftext|>"}])
    assert text == "def<|endoftext|><|endoftext|>"
    assert tokenizer.encode_marked(text).count(tokenizer.eos_id) == 2
    assert tokenizer.eos_id not in tokenizer.encode(text)


def test_of_several_templates_the_default_is_taken(tmp_path):
    tokenizer = PretrainedTokenizer(byte_level_checkpoint(tmp_path / "gpt"))
    tokenizer.wrapper._tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    template = tokenizer.chat_template()
    assert template is not None
    assert template.source == "a"
    tokenizer.wrapper._tokenizer.chat_template = {"rag": "c"}
    with pytest.raises(UserError, match=r"be named default; got \{'rag': 'c'\}"):
        tokenizer.chat_template()
