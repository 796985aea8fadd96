"""What the "Flash Attention Implementation Comparison" claims: four scripts in Python and MLX on an M3 Max."""

from eval.claims.claim import Claim


def _claim(identity: str, statement: str, published: str) -> Claim:
    return Claim(
        id=identity, source="Flash Attention Implementation Comparison", statement=statement, published=published
    )


CLAIMS = (
    _claim(
        "flash-first-practical",
        "Practical against baseline in the first configuration (B=1, L=64, D=32)",
        "32.2x",
    ),
    _claim("flash-first-demo", "Demo against baseline in the first configuration (B=1, L=64, D=32)", "26.7x"),
    _claim("flash-b1-l64-d64", "Practical and Demo against baseline at B=1, L=64, D=64", "0.92x, 1.01x"),
    _claim("flash-b1-l128-d32", "Practical and Demo against baseline at B=1, L=128, D=32", "1.13x, 1.30x"),
    _claim("flash-b1-l128-d64", "Practical and Demo against baseline at B=1, L=128, D=64", "1.18x, 1.11x"),
    _claim("flash-b2-l128-d32", "Practical and Demo against baseline at B=2, L=128, D=32", "0.71x, 1.00x"),
    _claim("flash-b4-l256-d32", "Demo against baseline at B=4, L=256, D=32", "1.06x"),
    _claim("flash-max-demo", "Largest speed-up of Demo with its switch on", "2.77x"),
    _claim("flash-max-practical", "Largest speed-up of Practical with its switch on", "1.61x"),
    _claim("flash-mean-demo", "Mean speed-up of Demo", "1.09x"),
    _claim("flash-mean-practical", "Mean speed-up of Practical", "1.04x"),
    _claim("flash-consistent", "Improvements are consistent across most configurations", "most"),
    _claim("flash-demo-over-practical", "Demo is faster than Practical", "1.09x against 1.04x"),
    _claim(
        "flash-head-dim",
        "Small head dimensions gain most, 128 least",
        "up to 32x, 0.9-1.2x, 1.0-1.5x",
    ),
    _claim("flash-length", "Short sequences gain most, 512 least", "64 > 128 > 256 > 512"),
    _claim("flash-batch", "Batch 1 gains most, batch 8 marginally", "1 > 2-4 > 8"),
    _claim("flash-poc", "The Metal kernel fails and falls back to MLX's attention at similar speed", "fallback"),
    _claim("flash-peak-demo", "Peak throughput of Demo", "5.25M tokens/s"),
    _claim("flash-peak-practical", "Peak throughput of Practical", "357K tokens/s"),
    _claim("flash-peak-baseline", "Peak throughput of the baseline", "1.48M tokens/s"),
    _claim("flash-mean-baseline", "Mean throughput of the baseline", "463K tokens/s"),
    _claim("flash-time-baseline", "Mean time of the baseline", "1.5 ms"),
    _claim("flash-efficiency-demo", "Mean efficiency of Demo", "98.3 %"),
    _claim("flash-efficiency-practical", "Mean efficiency of Practical", "91.3 %"),
    _claim("flash-memory", "Memory savings reach 100 %", "up to 100 %"),
    _claim(
        "finetune-practical",
        "Fine-tuning TinyLlama is 10 % faster with Practical (20 s -> 18 s)",
        "0.90x the time",
    ),
    _claim("finetune-demo", "Fine-tuning TinyLlama is 20 % faster with Demo (20 s -> 16 s)", "0.80x the time"),
    _claim(
        "finetune-qwen-practical",
        "Fine-tuning Qwen2.5 is 12 % faster with Practical (25 s -> 22 s)",
        "0.88x the time",
    ),
    _claim("finetune-qwen-demo", "Fine-tuning Qwen2.5 is 20 % faster with Demo (25 s -> 20 s)", "0.80x the time"),
    _claim("finetune-range", "Fine-tuning workflows become 20-60 % faster", "20-60 %"),
    _claim("flash-immediate", "Improvements are achievable immediately", "10-60 %"),
    _claim("throughput-tinyllama", "TinyLlama-1.1B: 50K -> 82K tokens/s", "1.64x"),
    _claim("throughput-qwen", "Qwen2.5-1.5B: 40K -> 75K tokens/s", "1.88x"),
    _claim("throughput-7b", "Llama-7B-like: 20K -> 35K tokens/s", "1.75x"),
    _claim("throughput-tinyllama-practical", "TinyLlama-1.1B with Practical: 50K -> 65K tokens/s", "1.30x"),
    _claim("throughput-qwen-practical", "Qwen2.5-1.5B with Practical: 40K -> 55K tokens/s", "1.38x"),
    _claim("throughput-7b-practical", "Llama-7B-like with Practical: 20K -> 25K tokens/s", "1.25x"),
    _claim("throughput-absolute-qwen", "Qwen2.5-1.5B fine-tunes at this rate with Demo", "75K tokens/s"),
    _claim("throughput-absolute-7b", "A Llama of 7B fine-tunes at this rate with Demo", "35K tokens/s"),
    _claim("throughput-absolute", "TinyLlama-1.1B fine-tunes at this rate with Demo", "82K tokens/s"),
    _claim("throughput-absolute-practical", "TinyLlama-1.1B fine-tunes at this rate with Practical", "65K tokens/s"),
    _claim("throughput-absolute-qwen-practical", "Qwen2.5-1.5B fine-tunes at this rate with Practical", "55K tokens/s"),
    _claim("throughput-absolute-7b-practical", "A Llama of 7B fine-tunes at this rate with Practical", "25K tokens/s"),
    _claim("throughput-absolute-baseline", "TinyLlama-1.1B fine-tunes at this rate with the baseline", "50K tokens/s"),
    _claim(
        "throughput-absolute-qwen-baseline", "Qwen2.5-1.5B fine-tunes at this rate with the baseline", "40K tokens/s"
    ),
    _claim(
        "throughput-absolute-7b-baseline", "A Llama of 7B fine-tunes at this rate with the baseline", "20K tokens/s"
    ),
    _claim("drop-in", "A drop-in replacement for the attention of existing models", "drop-in"),
)
