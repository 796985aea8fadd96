"""The `model_file` computes in mlx-lm what the model computes here, and needs nothing of this project."""

import importlib.metadata
import json
import re
import subprocess
import sys
import types

import mlx.core as mx
import pytest
from mlx_lm.utils import load_model as load_in_mlx_lm

from tests.tolerances import tolerance
from tests.zoo.checkpoints.export.variants import ONE_OF_EACH
from tests.zoo.checkpoints.saved import TOKENIZER, small_model
from zoo.attention import registry
from zoo.checkpoints import load_checkpoint
from zoo.checkpoints.export import MODEL_FILE, export_model
from zoo.config import UserError

ROWS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9]]
# Loads an exported model where this project cannot be imported, and computes the logits of a row.
ELSEWHERE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("zoo", "recipes", "eval"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import mlx.core as mx
from mlx_lm import load
model, tokenizer = load(sys.argv[1], trust_remote_code=True)
print(float(model(mx.array([tokenizer.encode("ab")])).sum()))
"""


def exported(folder, attention, **choices):
    model = small_model(attention, **choices)
    model.eval()
    folder.mkdir(exist_ok=True)
    return model, export_model(folder, model, tokenizer=TOKENIZER)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_mechanism_computes_the_same_in_mlx_lm_and_comes_back(name, tmp_path):
    model, layout = exported(tmp_path, name, family="llama", num_layers=4, max_seq_len=64)
    theirs, _ = load_in_mlx_lm(tmp_path, trust_remote_code=layout.has_model_file)
    rows_BL = mx.array(ROWS)
    # Another order of sums in layers of order 1.
    assert mx.abs(theirs(rows_BL) - model(rows_BL)).max() <= tolerance(mx.float32)
    if layout.has_model_file:
        again = load_checkpoint(tmp_path).model
        assert again.config == model.config
        assert mx.array_equal(again(rows_BL), model(rows_BL))
        assert not re.search(r"^\s*(from|import) zoo\b", (tmp_path / MODEL_FILE).read_text(), re.MULTILINE)


@pytest.mark.parametrize("choices", [{"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
def test_a_gpt_that_mlx_lm_has_no_code_for_computes_the_same(choices, tmp_path):
    for name in ("mha", "linear"):
        model, _ = exported(tmp_path / name, name, activation="relu", head_dim=3, **choices)
        theirs, _ = load_in_mlx_lm(tmp_path / name, trust_remote_code=True)
        assert mx.abs(theirs(mx.array(ROWS)) - model(mx.array(ROWS))).max() <= tolerance(mx.float32)


def test_a_model_is_computed_where_the_project_is_not_installed(tmp_path):
    model, _ = exported(tmp_path, "blocksparse", family="llama")
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], capture_output=True, text=True, check=True)
    found = float(done.stdout.splitlines()[-1])
    assert found == pytest.approx(float(model(mx.array([TOKENIZER.encode_prompt("ab")])).sum()), abs=1e-3)


def test_it_decodes_as_it_reads_and_keeps_caches_in_few_bits(tmp_path):
    exported(tmp_path, "dilated", family="llama", hidden_size=64, head_dim=32, max_seq_len=64)
    theirs, _ = load_in_mlx_lm(tmp_path, trust_remote_code=True)
    cache = theirs.make_cache()
    whole = theirs(mx.array(ROWS[:1]))
    steps = [theirs(mx.array([[token]]), cache=cache) for token in ROWS[0]]
    assert mx.abs(mx.concatenate(steps, axis=1) - whole).max() <= tolerance(mx.float32)
    packed = [each.to_quantized(group_size=32, bits=8) for each in cache]
    near = theirs(mx.array([[7]]), cache=packed) - theirs(mx.array([[7]]), cache=cache)
    # Eight bits of keys and values of order 1.
    assert 0 < mx.abs(near).max() < 0.1
    assert not any(hasattr(each, "merge") for each in (*cache, *packed))


OTHER = """
import dataclasses
from zoo.attention.pattern import PatternConfig

{imports}

@dataclasses.dataclass(frozen=True, kw_only=True)
class EveryConfig(PatternConfig):
    every: int = 2


def allowed(query_index, key_index, config: EveryConfig):
    return (query_index - key_index) % config.every == 0
"""


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Installs a package that adds the mechanism `every`."""

    def install(imports=""):
        (tmp_path / "every_package.py").write_text(OTHER.format(imports=imports))
        monkeypatch.syspath_prepend(tmp_path)
        entry = importlib.metadata.EntryPoint("every", "every_package", registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(registry, "_entry_points", lambda: iter([entry]))
        registry._find_all.cache_clear()
        sys.modules.pop("every_package", None)

    yield install
    sys.modules.pop("every_package", None)
    registry._find_all.cache_clear()


def test_a_mechanism_of_another_package_leaves_with_the_model(other_package, tmp_path, monkeypatch):
    other_package()
    model, _ = exported(tmp_path / "out", {"name": "every", "mechanism": "every", "every": 3}, family="llama")
    logits = model(mx.array(ROWS))
    monkeypatch.setitem(sys.modules, "every_package", types.ModuleType("every_package"))
    theirs, _ = load_in_mlx_lm(tmp_path / "out", trust_remote_code=True)
    assert mx.abs(theirs(mx.array(ROWS)) - logits).max() <= tolerance(mx.float32)


def test_a_mechanism_that_needs_more_than_its_file_is_refused_by_name(other_package, tmp_path):
    other_package("import hypothesis")
    with pytest.raises(UserError, match=r"attention 'every' must be one file.*'every_package' imports 'hypothesis'"):
        exported(tmp_path / "out", {"name": "every", "mechanism": "every"}, family="llama")


def spoilt(folder, *, tensors=None, **changes):
    exported(folder, "learned_sinks", family="llama")
    (folder / MODEL_FILE).write_text("raise SystemExit('run')")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    if tensors is not None:
        arrays = mx.load(str(folder / "model.safetensors"))
        mx.eval(arrays)
        mx.save_safetensors(str(folder / "model.safetensors"), tensors(dict(arrays)))
    return folder


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if not key.endswith(name)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention_zoo": 3}, "attention_zoo must describe the model; got 3"),
        ({"attention_zoo": {"family": "llama"}}, "attention_zoo: attention must be a variant"),
        ({"attention_zoo": {"family": "rnn"}}, "attention_zoo: family must be one of the model families"),
        ({"tensors": without("layers.1.self_attn.q_proj.weight")}, "missing: model.layers.1.self_attn.q_proj.weight"),
        ({"tensors": lambda arrays: {**arrays, "model.more": mx.zeros(1)}}, "unexpected: 'model.more'"),
        ({"tensors": lambda arrays: {**arrays, "model.layers.0.x.y": mx.zeros(1)}}, "model.layers.0.x.y"),
    ],
)
def test_a_folder_that_was_changed_is_refused_in_one_line_and_never_run(changes, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)):
        load_checkpoint(spoilt(tmp_path, **changes))


def test_the_file_is_never_run_here(tmp_path):
    assert load_checkpoint(spoilt(tmp_path)).model.config.attention.name == "learned_sinks"
