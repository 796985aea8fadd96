"""Texts that tell tokenizers apart: code, digits, spaces, scripts, emoji, and what looks like special tokens."""

TEXTS = (
    "Hello world",
    "def f(x):\n    return x ** 2  # comment\n\n\n",
    "In 1984, 3.14159 and 1,000,000 people; 42nd. 8  9",
    "漢字かな交じり文。中文分词",
    "🙂👩‍👩‍👧 emoji 🇫🇷",
    "tabs\tand\r\nnewlines\n\n  indented",
    "   leading spaces",
    "trailing   ",
    "I'll don't WE'RE he'S",
    "Ωμέγα ñandú e\u0301 \ufb01",
    "a",
    "",
    " ",
    "x\u00a0y\u200bz ٣٤٥ ½ Ⅷ ²",
    "<s>text</s> that <think> spells <|im_start|> tokens <0x41> [PAD]",
)
