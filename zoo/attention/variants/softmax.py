"""Full softmax attention, with query heads optionally sharing key/value heads (MHA, GQA, MQA).

    y_i = sum_j softmax_j(q_i·k_j / sqrt(head_dim)) v_j

Vaswani et al., "Attention Is All You Need", https://arxiv.org/abs/1706.03762 (multi-head);
Shazeer, "Fast Transformer Decoding", https://arxiv.org/abs/1911.02150 (multi-query);
Ainslie et al., "GQA", https://arxiv.org/abs/2305.13245 (grouped-query; query head n reads key/value head
n // queries_per_kv_head).
"""

from zoo.attention.pattern import PatternConfig, pattern_mechanism
from zoo.ops import softmax

MECHANISM = pattern_mechanism(
    name="softmax",
    allowed=None,
    config=PatternConfig,
    implementations={"fused": lambda _: softmax.fused, "manual": lambda _: softmax.manual},
)
