"""Makes the references under `peft/`: a small Llama, PEFT's adapters on it, on a BERT and on a GPT-2, and logits.

Needs torch, transformers and peft, which the suite does not: python tests/references/make_peft.py
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

FOLDER = Path(__file__).with_name("peft")
BERT = Path(__file__).with_name("pretrained") / "bert_classes" / "model"
GPT2 = Path(__file__).with_name("pretrained") / "gpt2" / "model"
TOKENS = [[1, 5, 9, 30, 2]]
CASES = {
    "lora": {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    "dora": {"target_modules": ["k_proj", "up_proj"], "use_dora": True},
    "last": {"target_modules": ["o_proj"], "layers_to_transform": [1], "use_rslora": True},
}


def main() -> None:
    """Writes all of it anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(FOLDER / "base")
    expected = {}
    for name, options in CASES.items():
        base = LlamaForCausalLM.from_pretrained(FOLDER / "base")
        model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for parameter in (each for label, each in model.named_parameters() if "lora_" in label):
                parameter.add_(torch.randn_like(parameter) * 0.1)
            expected[name] = model(torch.tensor(TOKENS)).logits.numpy()
        model.save_pretrained(FOLDER / name)
        (FOLDER / name / "README.md").unlink()
        path = FOLDER / name / "adapter_config.json"
        path.write_text(path.read_text().replace(str(FOLDER / "base"), "../base"))
    base = BertForSequenceClassification.from_pretrained(BERT, dtype=torch.float32).eval()
    options = {"target_modules": ["query", "attention.output.dense"], "task_type": "SEQ_CLS"}
    model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, modules_to_save=["classifier", "pooler"], **options))
    with torch.no_grad():
        for parameter in (each for label, each in model.named_parameters() if each.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.1)
        expected["bert"] = model(torch.tensor(TOKENS)).logits.numpy()
    model.save_pretrained(FOLDER / "bert")
    (FOLDER / "bert" / "README.md").unlink()
    path = FOLDER / "bert" / "adapter_config.json"
    path.write_text(path.read_text().replace(str(BERT), "../../pretrained/bert_classes/model"))
    for name, options in (
        ("gpt2", {"target_modules": ["c_attn", "c_fc"]}),
        ("gpt2_dora", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    ):
        base = GPT2LMHeadModel.from_pretrained(GPT2, dtype=torch.float32).eval()
        config = LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", fan_in_fan_out=True, **options)
        model = get_peft_model(base, config)
        with torch.no_grad():
            for parameter in (each for each in model.parameters() if each.requires_grad):
                parameter.add_(torch.randn_like(parameter) * 0.1)
            expected[name] = model(torch.tensor(TOKENS)).logits.numpy()
        model.save_pretrained(FOLDER / name)
        (FOLDER / name / "README.md").unlink()
        path = FOLDER / name / "adapter_config.json"
        path.write_text(path.read_text().replace(str(GPT2), "../../pretrained/gpt2/model"))
    np.savez(FOLDER / "expected.npz", **expected)


if __name__ == "__main__":
    main()
