"""`compare.py checkpoint=…`: what an exchange broke and what came back; refusals are records; nothing is done twice."""

import contextvars
import json
from pathlib import Path

import mlx.core as mx
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import recipes.checkpoint_comparison
import recipes.compare
import recipes.evaluate
import recipes.finetune
from eval.report.trainings import recovered_share
from eval.rows import read_rows
from recipes.app import CONFIGS, execute
from recipes.compare import main
from recipes.scripts import RefusedError
from tests.recipes.test_finetune import TINY, build
from zoo.attention.catalog import variant
from zoo.checkpoints import load_checkpoint, save_checkpoint
from zoo.config.files import read_yaml_mapping
from zoo.data.tokenizers import BytesTokenizer

MAINS = {"evaluate.py": recipes.evaluate.main, "finetune.py": recipes.finetune.main}


class InProcess:
    """Runs scripts here, where importing takes no time."""

    def __init__(self, capsys):
        self.capsys, self.seen = capsys, []

    def run(self, script):
        self.seen.append(script)
        hydra, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
        GlobalHydra.instance().clear()
        self.capsys.readouterr()
        name = script.script.removesuffix(".py")
        code = contextvars.copy_context().run(execute, name, MAINS[script.script], script.arguments)
        said = self.capsys.readouterr()
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, config
        if code == 2:
            reason = said.err.strip().splitlines()[-1].removeprefix("error: ")
            raise RefusedError(reason, reason=reason)
        assert code == 0, said.err
        return json.loads(said.out.splitlines()[-1])

    def stop(self):
        """Nothing runs beside."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    mx.random.seed(5)
    folder = tmp_path_factory.mktemp("base") / "small"
    return save_checkpoint(folder, model=build(init_std=0.4), tokenizer=BytesTokenizer())


@pytest.fixture
def compare(base, text_corpus, tmp_path, tmp_path_factory, capsys, monkeypatch):
    """Runs `compare.py` on the checkpoint; gives the scripts that it ran, its JSON or None, and stderr."""
    cache = tmp_path_factory.getbasetemp() / "token-cache"

    def run(*more):
        scripts = InProcess(capsys)
        monkeypatch.setattr(recipes.checkpoint_comparison, "ScriptRunner", lambda **_: scripts)
        places = ["data=text", f"data.path={text_corpus}", f"data.cache_dir={cache}", f"run_dir={tmp_path / 'run'}"]
        own = ["variants=[mha_manual]", "seeds=[3]", "benchmark=false", "tasks=[language,ablation]"]
        code = execute("compare", main, [f"checkpoint={base}", *TINY, "training.steps=2", *places, *own, *more])
        said = capsys.readouterr()
        return scripts.seen, json.loads(said.out.splitlines()[-1]) if code == 0 else None, said.err

    return run


SWA = "swa(window_size=3)"


def quality_records(result, **fields):
    """The figures of a comparison's records that have these fields."""
    rows = [row.quality for row in read_rows(Path(result["rows_path"]))]
    return [each for each in rows if each and all(getattr(each, name) == value for name, value in fields.items())]


def test_every_exchange_leaves_a_record_and_every_arm_is_asked_the_same(compare, base, tmp_path):
    asked = [f"variants=[{SWA},blocksparse_legacy]", "arms=[heal,scratch]", "method=full", "scratch=[seed=9]"]
    asked += ["training.steps=5"]
    seen, result, errors = compare(*asked)
    assert result is not None, errors
    matching = [script for script in seen if "distillation.attention_steps=1" in script.arguments]
    assert [script.name for script in matching] == [f"training heal-{SWA}-seed3"]
    heal, scratch, refused = result["summary"]
    assert (heal["arm"], scratch["arm"], heal["damage"]) == ("heal", "scratch", scratch["damage"])
    assert "must not see the future" in refused["refused"]
    (skipped,) = [row for row in read_rows(Path(result["rows_path"])) if row.status == "skipped"]
    assert (skipped.quality.variant, skipped.reason) == ("blocksparse_legacy", refused["refused"])
    # One text and one way to ask: the original's figure is the one that the damage is reckoned from.
    (before,) = quality_records(result, model="small", variant="mha", task="language", metric="bits_per_byte")
    assert before.value == pytest.approx(heal["damage"]["bits_per_byte_before"], rel=1e-5)
    (healed,) = quality_records(result, model="small, heal", variant=SWA, task="language", metric="bits_per_byte")
    assert heal["recovered_share"] == recovered_share(heal["damage"], healed.value)
    (without,) = quality_records(result, model="small, heal", metric="bits_per_byte without attention")
    assert heal["mean_bits_per_byte_without_attention"] == without.value != healed.value
    # One budget of tokens, and weights that are not the checkpoint's.
    trained = quality_records(result, metric="val_bits_per_byte")
    assert {(each.model, each.tokens, each.budget) for each in trained} == {
        (f"small, {arm}", 5 * 3 * 37, "equal_tokens") for arm in ("heal", "scratch")
    }
    assert all(each.curve[-1].tokens == each.tokens for each in trained)
    fresh = load_checkpoint(tmp_path / "run" / "fresh" / f"{SWA}-seed3").model
    assert mx.abs(fresh.embed_tokens.weight - load_checkpoint(base).model.embed_tokens.weight).max() > 0.1
    assert Path(result["report_path"]).is_file()

    # What was refused for want of memory may go another time.
    again, repeated, _ = compare(*asked)
    assert [script.name for script in again] == ["looking at blocksparse_legacy"]
    assert repeated["summary"] == result["summary"]


def test_without_arms_it_only_looks_and_all_is_every_variant(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes.compare, "attention_names", lambda: ["mha_manual", "swa"])
    seen, result, errors = compare("variants=[all]", "arms=[]", "layers=[-1]", "tasks=[]")
    assert result is not None, errors
    assert [script.script for script in seen] == ["evaluate.py"] * 2
    exact, other = (json.loads(each.surgery) for each in quality_records(result, task="surgery"))
    assert (exact["layers"], exact["num_layers"]) == ([1], 2)
    assert exact["damage"]["largest_logit_difference"] <= 1e-4
    assert [line["damage"] for line in result["summary"]] == [exact["damage"], other["damage"]]
    assert exact["greedy"]["tokens"] == 64
    other = save_checkpoint(tmp_path / "small", model=build(), tokenizer=BytesTokenizer())
    seen, _, errors = compare("arms=[]", "layers=[-1]", f"checkpoint={other}")
    assert (seen, "was begun with another checkpoint" in errors) == ([], True)


def test_conversations_are_learnt_from_and_each_fine_tuning_looks_for_itself(compare, tmp_path):
    (tmp_path / "chats").mkdir()
    for split, numbers in (("train", range(12)), ("valid", range(12, 18))):
        lines = [json.dumps({"prompt": f"What is {n}?", "completion": f" {n}, of course"}) for n in numbers]
        (tmp_path / "chats" / f"{split}.jsonl").write_text("\n".join(lines))
    own = ["data=examples", f"data.path={tmp_path / 'chats'}", "arms=[finetune]", "variants=[swa]", "tasks=[]"]
    own += ["training.batch_size=1", "training.eval_batches=null"]
    seen, result, errors = compare(*own)
    assert result is not None, errors
    assert [script.script for script in seen] == ["finetune.py"]
    (line,) = result["summary"]
    assert (line["arm"], line["seeds"], line["recovered_share"]) == ("finetune", 1, None)
    # All that validation looks at: every byte of six answers, and where each ends.
    assert line["damage"]["tokens"] == sum(len(f" {n}, of course") + 1 for n in range(12, 18))
    (trained,) = quality_records(result, model="small, examples, finetune")
    assert (trained.metric, trained.value) == ("val_bits_per_byte", line["mean_bits_per_byte"])
    assert "data must be a corpus of text" in compare(*own, "tasks=[language]")[2]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model=gpt_tiny", "model must not be given beside checkpoint"),
        ("attention=swa", "attention must not be given beside checkpoint"),
        ("arms=[mend]", "arms"),
        ("method=half", "finetune.method must be one of full, lora, dora, qlora"),
        ("checkpoint=nowhere/at/all", "checkpoint"),
        ("layers=[7]", "layers must be numbers from -2 to 1; got 7"),
        ("training.stepz=3", "unknown key 'stepz'"),
    ],
)
def test_mistakes_are_one_line_before_any_work(compare, argument, message, tmp_path):
    seen, result, errors = compare(argument)
    assert (seen, result) == ([], None)
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_speed_is_timed_beside_the_original_where_a_yaml_has_the_shape(compare, tmp_path, monkeypatch):
    values = read_yaml_mapping(CONFIGS / "model" / "llama_tiny.yaml", what="models")
    model = build(**{**values, "vocab_size": 259, "max_seq_len": 64, "attention": variant("mha").as_mapping()})
    shaped = save_checkpoint(tmp_path / "runs" / "one" / "shaped", model=model, tokenizer=BytesTokenizer())
    monkeypatch.setattr(InProcess, "run", lambda scripts, script: scripts.seen.append(script))
    seen, _, _ = compare(f"checkpoint={shaped}", "variants=[swa]", "arms=[]", "tasks=[]", "benchmark=true")
    assert [script.script for script in seen] == ["evaluate.py", "benchmark.py"]
    assert {"variants=['mha','swa']", "models=[llama_tiny]", "lengths=[37]"} <= set(seen[-1].arguments)


def test_next_to_no_damage_has_no_share_that_came_back():
    assert recovered_share({"bits_per_byte_before": 2.0, "bits_per_byte_after": 3.0}, 2.25) == 0.75
    assert recovered_share({"bits_per_byte_before": 2.0, "bits_per_byte_after": 2.005}, 1.9) is None
