"""The script of real iterations, on a tiny model: what it writes is what the runs measured."""

import json

from tests.endurance.adaptations import main
from tests.zoo.checkpoints.huggingface.references import model_folder

TINY = ["training.batch_size=2", "training.sequence_length=16", "training.compile=false", "data.loss_on=all"]


def test_each_variant_and_seed_becomes_a_row_once(tmp_path, capsys):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b b"}]
    text = "\n".join(json.dumps({"messages": talk, "number": number}) for number in range(6))
    (tmp_path / "conversations.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}", encoding="utf-8")
    places = [f"folder={tmp_path}", f"data.chat_template={tmp_path / 'chat.jinja'}", f"data.cache_dir={tmp_path / 'c'}"]
    typed = [f"checkpoint={model_folder('llama')}", *places, "seeds=0", "steps=3", *TINY]
    assert main([*typed, "variants=linear"]) == 0, capsys.readouterr().err
    assert main([*typed, "variants=linear,nothing"]) == 1
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["variant"], row["exit_code"]) for row in rows] == [("linear", 0), ("nothing", 2)]
    row = rows[0]
    assert len(row["losses"]) == row["steps"] == 3
    assert len(row["step_seconds"]) == 2
    assert row["tokens_per_second"] > 0
    assert row["surgery"]["damage"]
