"""Small tokenizers in Hugging Face's layout, of the kinds that checkpoints come with."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPACE = "\u2581"


def _write(folder: Path, tokenizer: Tokenizer, **special: str) -> Path:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def byte_level_checkpoint(folder: Path) -> Path:
    """As GPT-2 and its descendants: bytes as letters, a normal form, and a tag that is no special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "Ġ"), ("d", "e"), ("de", "f"), ("Ã", "¶"), ("Ċ", "Ġ")]
    pieces = [*alphabet, *("".join(pair) for pair in merges), "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False, rstrip=True)])
    return _write(folder, tokenizer, eos_token="<|endoftext|>")


def metaspace_checkpoint(folder: Path, *, normalizes: bool = True, start: str | None = "<s>", end: str = "") -> Path:
    """As Llama 2: a space before the text, spaces as U+2581, bytes for what has no piece, a start token.

    Older files put the space there by normalising the text, newer ones while they split it.

    Args:
        folder: Is made.
        normalizes: Whether it is an older file.
        start: The start token that a prompt begins with; "" for one that stands in the vocabulary but is
            not put there; None for none.
        end: What a prompt ends with, such as "</s>".
    """
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    pieces += [SPACE, *"abcdefghijklmnopqrstuvwxyz<>/.", *(SPACE + letter for letter in "abcdefx"), SPACE * 2]
    merges = [(SPACE, letter) for letter in "abcdefx"] + [(SPACE, SPACE)]
    model = models.BPE(
        {piece: index for index, piece in enumerate(pieces)}, merges, byte_fallback=True, unk_token="<unk>"
    )
    tokenizer = Tokenizer(model)
    if normalizes:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<mask>"])
    if start or end:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start or ''} $A {end}".strip(), special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    special = {} if start is None else {"bos_token": "<s>"}
    return _write(folder, tokenizer, **special, eos_token="</s>", unk_token="<unk>", mask_token="<mask>")


def word_piece_checkpoint(folder: Path) -> Path:
    """As BERT: capitals, accents and the kind of space are lost."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "area", "##s", "."]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.add_special_tokens(pieces[:5])
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return _write(folder, tokenizer, **{f"{name}_token": token for name, token in special.items()})
