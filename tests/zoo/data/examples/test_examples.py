"""Examples: exactly the assistant's tokens are learnt, whatever the template does, and rows are pure and apart."""

import json

import mlx.core as mx
import numpy as np
import pytest

from tests.zoo.data.tokenizers.checkpoints import byte_level_checkpoint
from tests.zoo.models import cases
from zoo.attention.catalog import variant_mapping
from zoo.config import UserError, from_mapping
from zoo.data.examples import ExampleLoader, ExamplesConfig, ExampleSplit, prepare_examples
from zoo.data.examples.encoding import ExampleEncoder
from zoo.data.examples.loader import kept_of_texts
from zoo.data.examples.records import Completion, Conversation
from zoo.data.tokenizers import BytesTokenizer, ChatTemplate, PretrainedTokenizer
from zoo.models import build_model, model_config_from_mapping
from zoo.ops.masks import MaskSpec
from zoo.training.batches import to_arrays
from zoo.training.loss import summed_nats, token_nats

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Earlier answers lose what stands before their last word, as thoughts are left out.
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>"
    "{{ m.content if loop.last or m.role == 'user' else m.content.split()[-1] }};{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TURNS = (("system", "Be brief."), ("user", "é?"), ("assistant", "é!"), ("user", "So"), ("assistant", " two words"))
MESSAGES = tuple({"role": role, "content": content} for role, content in TURNS)


@pytest.fixture(scope="module")
def template():
    """One process for all templates: starting one takes a second."""
    made = ChatTemplate(CHATML, {"eos_token": "</s>"})
    made.render([])
    yield made
    made.close()


@pytest.fixture(scope="module")
def encoder(template):
    def make(source=CHATML, loss_on="assistant", tokenizer=None):
        template.source = source
        return ExampleEncoder(tokenizer or BytesTokenizer(), template, loss_on)

    return make


@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[1:], (*MESSAGES, {"role": "user", "content": "?"})])
def test_exactly_the_assistants_tokens_of_every_turn_are_learnt(encoder, messages):
    tokenizer = BytesTokenizer()
    (row,) = encoder().rows(Conversation(messages=messages), "x:1")
    tokens, trained = row
    said = [list("é!".encode()), [*b" two words"]]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trained.astype(int), [0]]))).reshape(-1, 2)
    assert [tokens[a:b].tolist() for a, b in edges] == [[*each, tokenizer.eos_id, ord("\n")] for each in said]


def test_the_last_turn_alone_and_everything_can_be_learnt(encoder):
    (row,) = encoder(loss_on="last").rows(Conversation(messages=MESSAGES), "x:1")
    assert row[0][row[1]].tolist() == [*b" two words", 256, ord("\n")]
    assert not encoder(loss_on="last").rows(Conversation(messages=MESSAGES[:4]), "x:1")[0][1].any()
    (row,) = encoder(loss_on="all").rows(Conversation(messages=MESSAGES), "x:1")
    assert row[1].all()


def test_a_turn_that_the_template_changes_later_is_learnt_as_it_was_answered(encoder):
    messages = tuple(
        {"role": role, "content": text}
        for role, text in (("user", "a b"), ("assistant", "think yes"), ("user", "c"), ("assistant", "why no"))
    )
    made = encoder(FORGETFUL)
    rows = made.rows(Conversation(messages=messages), "x:1")
    tokenizer = BytesTokenizer()
    assert [(tokenizer.decode(tokens), tokenizer.decode(tokens[trained])) for tokens, trained in rows] == [
        ("<user>a b;<assistant>think yes;", "think yes;"),
        ("<user>a b;<assistant>yes;<user>c;<assistant>why no;", "why no;"),
    ]
    assert made.num_own_rows == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{% if add_generation_prompt %}<think>{% endif %}{{ messages[-1].content }}",
            "must write message 3 behind the",
        ),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[9].role }}", "must render these messages"),
    ],
)
def test_turns_that_cannot_be_found_are_refused_by_file_and_line(encoder, source, message):
    with pytest.raises(UserError, match=f"^x.jsonl:7: .*{message}"):
        encoder(source).rows(Conversation(messages=MESSAGES), "x.jsonl:7")


def test_special_tokens_of_a_checkpoint_are_read_as_such_and_answers_are_still_found(encoder, tmp_path):
    tokenizer = PretrainedTokenizer(byte_level_checkpoint(tmp_path / "gpt"))
    source = CHATML.replace("eos_token", "'<|endoftext|>'")
    (row,) = encoder(source, tokenizer=tokenizer).rows(Conversation(messages=MESSAGES), "x:1")
    tokens, trained = row
    assert (tokens[trained] == tokenizer.eos_id).sum() == 2
    # This tokenizer puts a space before every stretch.
    assert tokenizer.decode(tokens[trained]).replace(" ", "") == "é!\ntwowords\n"


def test_prompts_are_not_learnt_and_texts_are(encoder):
    tokenizer, plain = BytesTokenizer(), ExampleEncoder(BytesTokenizer(), None, "assistant")
    tokens, trained = plain.rows(Completion(prompt="ab", completion="cd"), "x:1")[0]
    assert (tokens.tolist(), trained.tolist()) == ([256, *b"abcd", 256], [False] * 3 + [True] * 3)
    assert plain.rows("ab", "x:1")[0][0].tolist() == [256, *b"ab", 256]
    whole = ExampleEncoder(tokenizer, None, "all").rows(Completion(prompt="ab", completion="cd"), "x:1")[0]
    assert whole[1].all()
    (row,) = encoder().rows(Completion(prompt="ab", completion="cd"), "x:1")
    assert row[0][row[1]].tolist() == [*b"cd", 256, ord("\n")]
    with pytest.raises(UserError, match=r"^x:1: a conversation must have a chat template"):
        plain.rows(Conversation(messages=MESSAGES), "x:1")


def write(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def prepared(tmp_path, **fields):
    return prepare_examples(ExamplesConfig(**fields), BytesTokenizer(), cache_dir=tmp_path / "cache")


@pytest.fixture
def corpus(tmp_path):
    """Texts of 1 to 40 letters."""
    path = write(tmp_path / "a.jsonl", [{"text": chr(97 + n % 26) * (n + 1)} for n in range(40)])
    return prepared(tmp_path, path=str(path), validation_fraction=0.2)


def test_a_folder_as_mlx_lms_users_have_it_is_read_and_its_test_file_is_not(tmp_path):
    for name, text in (("train", "a"), ("valid", "b"), ("test", "c")):
        write(tmp_path / f"{name}.jsonl", [{"text": text * 3}])
    found = prepared(tmp_path, path=str(tmp_path))
    assert [split.tokens_T.tolist() for split in (found.train, found.validation)] == [
        [256, *b"aaa", 256],
        [256, *b"bbb", 256],
    ]


def test_keys_and_roles_can_have_other_names(tmp_path, encoder):
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    path = write(tmp_path / "a.jsonl", [{"talk": talk}, {"talk": [*talk, *talk]}])
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}")
    found = prepared(
        tmp_path,
        path=str(path),
        keys=from_mapping(
            type(ExamplesConfig(path="").keys), {"messages": "talk", "role": "from", "content": "value"}, path="keys"
        ),
        roles={"human": "user", "gpt": "assistant"},
        chat_template=str(tmp_path / "t.jinja"),
        validation_fraction=0.5,
    )
    tokens, trained = found.train.example(0)
    tokenizer = found.tokenizer
    assert tokenizer.decode(tokens).startswith("user:a;assistant:b;")
    assert set(tokenizer.decode(tokens[trained])) == set("assistant:b;")
    assert tokenizer.chat_source is not None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{", '{"text": "a"}'], r"a\.jsonl:1 must be JSON"),
        (["[1]"], r"a\.jsonl:1: must be a JSON object; got list"),
        (['{"story": "a"}'], r"a\.jsonl:1: must have the key 'messages', or .*got \['story'\]"),
        (['{"text": "a"}', '{"prompt": "a", "completion": "b"}'], r"a\.jsonl:2: 'text' must be a text; got None"),
        (['{"text": 3}'], r"a\.jsonl:1: 'text' must be a text; got 3"),
        (['{"text": "\\ud800"}'], r"a\.jsonl:1: 'text' must be Unicode"),
        (['{"messages": []}'], r"a\.jsonl:1: 'messages' must be a list of messages"),
        (['{"messages": ["a"]}'], r"a\.jsonl:1: 'messages' must be a list of messages"),
        (['{"messages": [{"content": "a"}]}'], r"a\.jsonl:1: message 1: 'role' must be a text"),
        (['{"messages": [{"role": "user"}]}'], r"a\.jsonl:1: message 1 must have 'content'"),
        (['{"messages": [{"role": "user", "content": "a"}], "tools": 3}'], r"'tools' must be a list of objects"),
        (['{"prompt": "a", "completion": "b"}'], "at least, one to validate on"),
    ],
)
def test_a_record_that_is_none_is_named_by_file_and_line(tmp_path, lines, message):
    others = [] if "validate" in message else ['{"text": "zz"}', '{"text": "zzz"}']
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, *others]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, path=str(tmp_path / "a.jsonl"))


def loader(corpus, **options):
    return ExampleLoader(
        corpus.train, corpus.tokenizer, **{"batch_size": 3, "sequence_length": 64, "seed": 4, **options}
    )


@pytest.mark.parametrize("pack", [False, True])
def test_an_epoch_shows_every_example_and_a_batch_is_a_pure_function_of_the_step(corpus, pack):
    first, again = loader(corpus, pack=pack), loader(corpus, pack=pack)
    steps = -(-first.num_rows // 3)
    batches = [first.batch(step) for step in range(2 * steps)]
    for step in (2 * steps - 1, 0, steps, 1):
        other = again.batch(step)
        assert np.array_equal(other.inputs_BL, batches[step].inputs_BL)
        assert np.array_equal(other.weights_BL, batches[step].weights_BL)
    for epoch in (batches[:steps], batches[steps:]):
        seen = {
            (int(batch.targets_BL[place]),)
            for batch in epoch
            for place in zip(*np.nonzero(batch.weights_BL), strict=True)
        }
        texts = {(int(token),) for token in corpus.train.tokens_T}
        assert seen == texts
    assert [batch.identity.partition(":")[2] for batch in batches[:steps]] != [
        batch.identity.partition(":")[2] for batch in batches[steps:]
    ]


def test_rows_of_a_batch_have_about_one_length_and_packed_rows_are_fuller(corpus):
    def padding(made):
        batches = [made.batch(step) for step in range(-(-made.num_rows // 3))]
        return 1 - sum(int(batch.lengths_B.sum()) for batch in batches) / sum(batch.inputs_BL.size for batch in batches)

    assert loader(corpus, pack=True).num_rows < loader(corpus).num_rows / 2
    assert padding(loader(corpus, pack=True)) < 0.25
    widths = {loader(corpus).batch(step).inputs_BL.shape[1] for step in range(9)}
    assert widths == {32, 64}


def test_what_is_cut_is_said_with_the_count_and_what_nothing_is_left_of_is_left_out(tmp_path, caplog):
    records = [{"prompt": "a" * n, "completion": "bb"} for n in range(1, 9)] + [{"prompt": "c", "completion": "d" * 30}]
    write(tmp_path / "train.jsonl", records)
    write(tmp_path / "valid.jsonl", records[:2])
    found = prepared(tmp_path, path=str(tmp_path))
    made = loader(found, sequence_length=6)
    assert "6 of 9 train examples are cut to training.sequence_length 6; the longest has 32" in caplog.text
    assert "3 of them have nothing to learn in what is left, and are left out" in caplog.text
    assert made.num_rows == 6
    with pytest.raises(UserError, match=r"training\.sequence_length must reach something to learn"):
        loader(found, sequence_length=1)


def test_validation_counts_every_row_once(corpus):
    made = ExampleLoader(corpus.train, corpus.tokenizer, batch_size=3, sequence_length=64, seed=4)
    total = sum(float(batch.weights_BL.sum()) for batch in made.validation_batches())
    assert total == len(corpus.train.tokens_T) - len(corpus.train.ends_N)
    assert [batch.identity for batch in made.validation_batches(2)] == [
        batch.identity for batch in list(made.validation_batches())[:2]
    ]


def test_packed_examples_are_to_the_model_as_if_each_stood_alone(corpus):
    mapping = {"family": "llama", "attention": variant_mapping("mha"), "num_layers": 2, "hidden_size": 24}
    sizes = {"num_heads": 4, "max_seq_len": 64, "vocab_size": corpus.tokenizer.vocab_size}
    model = build_model(model_config_from_mapping({**mapping, **sizes}))
    batch = loader(corpus, pack=True).batch(0)
    assert batch.segments_BL is not None
    assert batch.segments_BL.max() > 1

    def logits(inputs_BL):
        mask = MaskSpec(causal=True, segments_BL=mx.array(batch.segments_BL))
        return np.array(model(mx.array(inputs_BL), mask=mask))

    before = logits(batch.inputs_BL)
    changed = batch.inputs_BL.copy()
    first = batch.segments_BL[0] == 0
    changed[0, first] = ord("!")
    after = logits(changed)
    assert np.array_equal(after[0, ~first], before[0, ~first])
    assert np.array_equal(after[1:], before[1:])
    assert (np.abs(after[0, first] - before[0, first]).max(axis=-1) > 1e-4).all()
    second = batch.segments_BL[0] == 1
    alone = np.array(model(mx.array(batch.inputs_BL[:1, second])))[0]
    assert np.allclose(alone, before[0, second], atol=1e-5)


# A start, a text and its separator, and of some a second text and its separator.
PAIRS = [([1, 5, 6, 2], 0), ([1, 5, 2, 7, 8, 9, 10, 11, 2], 6), ([1, *range(20, 29), 2, *range(30, 33), 2], 4)]
# What nine tokens hold of them.
CUT = [[1, 5, 6, 2], [1, 5, 2, 7, 8, 9, 10, 11, 2], [1, *range(20, 23), 2, *range(30, 33), 2]]


def labelled_split():
    return ExampleSplit(
        name="train",
        tokens_T=np.concatenate([tokens for tokens, _ in PAIRS]).astype(np.int32),
        marks_T=np.concatenate([np.arange(len(tokens)) >= len(tokens) - second for tokens, second in PAIRS]),
        ends_N=np.cumsum([len(tokens) for tokens, _ in PAIRS]),
        labels_N=np.array([1, 0, 1]),
    )


def test_a_batch_of_texts_to_classify_is_to_a_model_as_if_each_stood_alone():
    tokenizer = BytesTokenizer()
    shape = {"vocab_size": tokenizer.vocab_size, "num_token_types": 2, "masked_token_head": False, "num_classes": 3}
    model = cases.varied(cases.model("bert", **shape))
    loader = ExampleLoader(labelled_split(), tokenizer, batch_size=3, sequence_length=9, seed=0, classes=(2, 0))
    (arrays,) = to_arrays(loader.batch(0))
    nats = 0.0
    for tokens, (whole, second), label in zip(CUT, PAIRS, (0, 2, 0), strict=True):
        num_second = min(second, len(tokens) - tokens.index(2) - 1)
        types = np.arange(len(tokens)) >= len(tokens) - num_second
        scores_BC = model.classify(mx.array([tokens]), token_types_BL=mx.array(types[None].astype(np.int32)))
        nats += float(token_nats(scores_BC, mx.array([label])).item())
        assert len(whole) == len(tokens) or len(tokens) == 9
    assert arrays["targets_P"].size == 3
    assert summed_nats(model, arrays, causal=False).item() == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "count", "kept"),
    [
        (7, 0, 4, [0, 1, 2, 6]),
        (7, 3, 7, [0, 1, 2, 6, 7, 8, 9]),
        (3, 7, 7, [0, 1, 2, 3, 4, 5, 9]),
        (5, 5, 7, [0, 1, 4, 5, 6, 7, 9]),
        (5, 5, 3, [0, 1, 2]),
        (4, 2, 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_longer_text_is_cut_and_separators_stay(first, second, count, kept):
    assert kept_of_texts(np.arange(first + second) >= first, count).tolist() == kept
