// Softmax attention in tiles, forward and backward, compiled once for each instruction set.
//
// The lanes of a vector are queries: scores are kept transposed, [U, T], so that the maximum and the sum over keys need
// no work across lanes, and neither keys nor values are ever copied. The algorithm is that of zoo/ops/tiled.py (Dao et
// al., "FlashAttention", https://arxiv.org/abs/2205.14135): a running maximum and sum forward; backward from the
// log-sum-exp, recomputing each tile's weights. Scores are in units of log 2, since 2^x is cheaper than e^x.

#include "attention.h"
#include "gemm.h"
#include "simd.h"

namespace NATIVE_ISA {
namespace {

using native::Attention;
using native::Gradients;
using native::GradientSums;
using native::Outputs;

constexpr float LOG2_E = 1.44269504088896341f;
// Where the running maximum starts: below every true score, so that a query without keys has weight 0 everywhere.
constexpr float LOWEST_MAXIMUM = -1e30f;

struct Tile {
  int b, n, group;
  int first_query, num_queries;
  // Whole vectors of queries; those beyond num_queries count for nothing.
  int lanes;
};

Tile tile_at(const Attention& a, int b, int n, int row) {
  const int first = row * a.T, count = least(a.T, a.L - first);
  return {b, n, n / (a.N / a.K), first, count, padded(count)};
}

const float* key_row(const Attention& a, int b, int group, int key) {
  return a.k + b * a.k_strides.batch + group * a.k_strides.head + key * a.k_strides.row;
}

const float* value_row(const Attention& a, int b, int group, int key) {
  return a.v + b * a.v_strides.batch + group * a.v_strides.head + key * a.v_strides.row;
}

// [H, T] of factor * rows [num_queries, H]; zeros in the lanes beyond.
void pack_transposed(float* to, int T, const Tile& tile, int H, const float* from, long row, long column, float factor) {
  transpose(to, T, from, row, column, tile.num_queries, H, factor);
  for (int h = 0; h < H; h++)
    for (int t = tile.num_queries; t < tile.lanes; t++) to[static_cast<long>(h) * T + t] = 0.0f;
}

// [T, padded H] of rows [num_queries, H]; zeros beyond.
void pack_rows(float* to, int H_padded, const Tile& tile, int H, const float* from, long row, long column) {
  for (int t = 0; t < tile.lanes; t++) {
    float* out = to + static_cast<long>(t) * H_padded;
    const bool there = t < tile.num_queries;
    for (int h = 0; h < H; h++) out[h] = there ? from[t * row + h * column] : 0.0f;
    for (int h = H; h < H_padded; h++) out[h] = 0.0f;
  }
}

// Lanes that are worked on together, as many as the product takes at a time.
constexpr int PANEL = COLUMNS * W;

// Keys first ... last - 1 of a tile, and lanes first_lane ... last_lane - 1: all else is hidden.
struct Part {
  int first, last, first_lane, last_lane;

  bool empty() const { return first >= last; }
  int keys() const { return last - first; }
  int lanes() const { return last_lane - first_lane; }
  // Of [keys, T].
  long start(int T) const { return static_cast<long>(first) * T + first_lane; }
};

// The keys among the `count` of a tile of this kind that a panel of lanes sees any of.
Part seen_part(const Attention& a, const Tile& tile, int kind, int count, int first_lane) {
  Part part = {0, count, first_lane, least(first_lane + PANEL, tile.lanes)};
  if (kind == 0) return part;
  const uint8_t* mask = a.masks + static_cast<long>(kind - 1) * a.U * a.T;
  const auto hidden = [&](int u) {
    uint8_t any = 0;
    for (int t = part.first_lane; t < part.last_lane; t++) any |= mask[u * a.T + t];
    return any == 0;
  };
  while (part.first < part.last && hidden(part.first)) part.first++;
  while (part.first < part.last && hidden(part.last - 1)) part.last--;
  return part;
}

// Hides what may not be seen and adds ALiBi's bias, in a part of the scores [U, T] of keys first_key ... .
void finish(const Attention& a, const Tile& tile, int kind, int first_key, const Part& part, float* scores) {
  const Vec hidden = splat(-__builtin_inff());
  const int T = a.T, last_query = least(part.last_lane, tile.num_queries);
  if (a.slopes != nullptr) {
    const float slope = a.slopes[tile.n] * LOG2_E;
    const int32_t* queries = a.query_positions + tile.b * a.query_positions_batch + tile.first_query;
    const int32_t* keys = a.key_positions + tile.b * a.key_positions_batch + first_key;
    for (int u = part.first; u < part.last; u++)
      for (int t = part.first_lane; t < last_query; t++) {
        const int distance = queries[t] - keys[u];
        scores[u * T + t] -= slope * static_cast<float>(distance < 0 ? -distance : distance);
      }
  }
  if (kind > 0) {
    const uint8_t* mask = a.masks + static_cast<long>(kind - 1) * a.U * T;
    for (int u = part.first; u < part.last; u++)
      for (int t = part.first_lane; t < part.last_lane; t += W) {
        Bytes bytes;
        __builtin_memcpy(&bytes, mask + u * T + t, W);
        float* at = scores + u * T + t;
        store(at, __builtin_convertvector(bytes, Ints) != 0 ? load(at) : hidden);
      }
  }
  if (a.dense != nullptr) {
    const uint8_t* mask = a.dense + tile.b * a.dense_batch + static_cast<long>(first_key) * a.L + tile.first_query;
    for (int u = part.first; u < part.last; u++)
      for (int t = part.first_lane; t < last_query; t++)
        if (!mask[static_cast<long>(u) * a.L + t]) scores[u * T + t] = -__builtin_inff();
  }
  if (a.segments != nullptr) {
    const int32_t* row = a.segments + static_cast<long>(tile.b) * a.L;
    for (int u = part.first; u < part.last; u++)
      for (int t = part.first_lane; t < last_query; t++)
        if (row[tile.first_query + t] != row[first_key + u]) scores[u * T + t] = -__builtin_inff();
  }
}

// Whether no token of the tile's queries shares a document with one of the keys; documents ascend along a row.
bool in_other_documents(const Attention& a, const Tile& tile, int first_key, int count) {
  if (a.segments == nullptr) return false;
  const int32_t* row = a.segments + static_cast<long>(tile.b) * a.L;
  return row[first_key] > row[tile.first_query + tile.num_queries - 1] ||
         row[first_key + count - 1] < row[tile.first_query];
}

// Keys that a row of the batch has.
int num_keys(const Attention& a, int b) {
  return a.lengths == nullptr ? a.S : least(a.S, a.lengths[b]);
}

// A running softmax over keys, in lanes that are queries.
struct Running {
  float* peak;
  float* total;
  // [H, T]
  float* sums;
  int T, lanes, H;

  void start(const float* sink_of_lane) const {
    for (int t = 0; t < lanes; t += W) {
      const Vec sink = sink_of_lane == nullptr ? splat(LOWEST_MAXIMUM) : load(sink_of_lane + t) * LOG2_E;
      const Vec first = vmax(sink, splat(LOWEST_MAXIMUM));
      store(peak + t, first);
      store(total + t, sink_of_lane == nullptr ? Vec{} : exp2(sink - first));
    }
    for (int h = 0; h < H; h++)
      for (int t = 0; t < lanes; t += W) store(sums + static_cast<long>(h) * T + t, Vec{});
  }

  // Makes weights of a part of the scores [U, T], and lets what was summed shrink as the maximum rises.
  void update(float* scores, const Part& part) const {
    for (int t = part.first_lane; t < part.last_lane; t += W) {
      const Vec before = load(peak + t);
      Vec high = before;
      for (int u = part.first; u < part.last; u++) high = vmax(load(scores + static_cast<long>(u) * T + t), high);
      Vec added = {};
      for (int u = part.first; u < part.last; u++) {
        float* at = scores + static_cast<long>(u) * T + t;
        const Vec weight = exp2(load(at) - high);
        store(at, weight);
        added += weight;
      }
      const Vec shrink = exp2(before - high);
      store(total + t, load(total + t) * shrink + added);
      store(peak + t, high);
      bool rose = false;
      for (int i = 0; i < W; i++) rose |= !(shrink[i] == 1.0f);
      if (!rose) continue;
      for (int h = 0; h < H; h++) {
        float* at = sums + static_cast<long>(h) * T + t;
        store(at, load(at) * shrink);
      }
    }
  }

  void finish() const {
    for (int t = 0; t < lanes; t += W) {
      const Vec sum = load(total + t);
      const Vec inverse = sum == 0.0f ? Vec{} : 1.0f / sum;
      for (int h = 0; h < H; h++) {
        float* at = sums + static_cast<long>(h) * T + t;
        store(at, load(at) * inverse);
      }
    }
  }

  // In units of log 2, as scores are: the weights that come back from it are at most 1, however large the scores.
  float log_sum(int t) const {
    return peak[t] + (total[t] == 0.0f ? 0.0f : __builtin_log2f(total[t]));
  }
};

long scratch_floats(const Attention& a) {
  const long lanes = padded(a.N / a.K), T = lanes > a.T ? lanes : a.T, H = padded(a.H), U = a.U;
  // Queries and gradients both ways round, the gradient of the queries, two tiles of scores, four numbers a query.
  return 5 * T * H + 2 * U * T + 8 * T + 16 * W;
}

void forward(const Attention& a, const Outputs& out, int b, int n, int row, float* scratch) {
  const Tile tile = tile_at(a, b, n, row);
  const int T = a.T, H = a.H;
  float* queries = scratch;
  float* sums = queries + static_cast<long>(T) * H;
  float* scores = sums + static_cast<long>(T) * H;
  float* peak = scores + static_cast<long>(a.U) * T;
  const Running running = {peak, peak + T, sums, T, tile.lanes, H};
  float* sinks = peak + 2 * T;
  if (a.sinks != nullptr)
    for (int t = 0; t < tile.lanes; t++) sinks[t] = a.sinks[n];
  const auto& qs = a.q_strides;
  const float* from = a.q + b * qs.batch + n * qs.head + tile.first_query * qs.row;
  pack_transposed(queries, T, tile, H, from, qs.row, qs.column, a.scale * LOG2_E);
  running.start(a.sinks == nullptr ? nullptr : sinks);
  const int S = num_keys(a, b);
  for (int i = a.row_starts[row]; i < a.row_starts[row + 1]; i++) {
    const int first_key = a.columns[i] * a.U, count = least(a.U, S - first_key);
    if (count <= 0 || in_other_documents(a, tile, first_key, count)) continue;
    const float* k = key_row(a, b, tile.group, first_key);
    const float* v = value_row(a, b, tile.group, first_key);
    const auto &ks = a.k_strides, &vs = a.v_strides;
    for (int lane = 0; lane < tile.lanes; lane += PANEL) {
      const Part part = seen_part(a, tile, a.kinds[i], count, lane);
      if (part.empty()) continue;
      float* at = scores + part.start(T);
      multiply<false>({k + part.first * ks.row, ks.row, ks.column, queries + lane, T, at, T}, part.keys(), part.lanes(), H);
      finish(a, tile, a.kinds[i], first_key, part, scores);
      running.update(scores, part);
      multiply<true>({v + part.first * vs.row, vs.column, vs.row, at, T, sums + lane, T}, H, part.lanes(), part.keys());
    }
  }
  running.finish();
  float* y = out.y + b * out.y_strides.batch + n * out.y_strides.head + tile.first_query * out.y_strides.row;
  float* log_sums = out.log_sums + (static_cast<long>(b) * a.N + n) * a.L + tile.first_query;
  transpose(y, out.y_strides.row, sums, T, 1, H, tile.num_queries, 1.0f);
  for (int t = 0; t < tile.num_queries; t++) log_sums[t] = running.log_sum(t);
}

void decode(const Attention& a, const Outputs& out, int b, int group, float* scratch) {
  // Lanes are the heads of the group, whose one query sees the same keys.
  const int G = a.N / a.K, T = padded(G), H = a.H;
  float* queries = scratch;
  float* sums = queries + static_cast<long>(T) * H;
  float* scores = sums + static_cast<long>(T) * H;
  float* peak = scores + static_cast<long>(a.U) * T;
  float* sinks = peak + 2 * T;
  float* slopes = sinks + T;
  const Running running = {peak, peak + T, sums, T, T, H};
  for (int g = 0; g < T; g++) {
    const int n = group * G + g;
    sinks[g] = a.sinks != nullptr && g < G ? a.sinks[n] : 0.0f;
    slopes[g] = a.slopes != nullptr && g < G ? a.slopes[n] * LOG2_E : 0.0f;
  }
  const auto& qs = a.q_strides;
  const Tile heads = {b, 0, group, 0, G, T};
  const float* from = a.q + b * qs.batch + group * G * qs.head;
  pack_transposed(queries, T, heads, H, from, qs.head, qs.column, a.scale * LOG2_E);
  running.start(a.sinks == nullptr ? nullptr : sinks);
  const int S = num_keys(a, b);
  for (int i = a.row_starts[0]; i < a.row_starts[1]; i++) {
    const int first_key = a.columns[i] * a.U, count = least(a.U, S - first_key);
    if (count <= 0) continue;
    const float* k = key_row(a, b, group, first_key);
    const float* v = value_row(a, b, group, first_key);
    multiply<false>({k, a.k_strides.row, a.k_strides.column, queries, T, scores, T}, count, T, H);
    const uint8_t* mask = a.kinds[i] == 0 ? nullptr : a.masks + static_cast<long>(a.kinds[i] - 1) * a.U * a.T;
    for (int u = 0; u < count; u++) {
      const int key = first_key + u;
      bool seen = mask == nullptr || mask[static_cast<long>(u) * a.T];
      if (a.dense != nullptr) seen = seen && a.dense[b * a.dense_batch + key];
      if (a.segments != nullptr) seen = seen && a.segments[b] == a.segments[b + key];
      int distance = 0;
      if (a.slopes != nullptr) {
        distance = a.query_positions[b * a.query_positions_batch] - a.key_positions[b * a.key_positions_batch + key];
        distance = distance < 0 ? -distance : distance;
      }
      for (int t = 0; t < T; t += W) {
        float* at = scores + static_cast<long>(u) * T + t;
        if (!seen) {
          store(at, splat(-__builtin_inff()));
        } else if (a.slopes != nullptr) {
          store(at, load(at) - load(slopes + t) * static_cast<float>(distance));
        }
      }
    }
    running.update(scores, {0, count, 0, T});
    multiply<true>({v, a.v_strides.column, a.v_strides.row, scores, T, sums, T}, H, T, count);
  }
  running.finish();
  for (int g = 0; g < G; g++) {
    const int n = group * G + g;
    float* y = out.y + b * out.y_strides.batch + n * out.y_strides.head;
    for (int h = 0; h < H; h++) y[h * out.y_strides.column] = sums[static_cast<long>(h) * T + g];
    out.log_sums[static_cast<long>(b) * a.N + n] = running.log_sum(g);
  }
}

float dot(const float* a, long a_column, const float* b, long b_column, int H) {
  Vec sums = {};
  int h = 0;
  if (a_column == 1 && b_column == 1)
    for (; h + W <= H; h += W) sums += load(a + h) * load(b + h);
  float total = sum(sums);
  for (; h < H; h++) total += a[h * a_column] * b[h * b_column];
  return total;
}

void backward_tile(
    const Attention& a, const Gradients& g, const Tile& tile, int row, const GradientSums& sums, float* scratch) {
  const int T = a.T, H = a.H, H_padded = padded(H);
  float* queries = scratch;
  float* dy = queries + static_cast<long>(T) * H;
  float* dqueries = dy + static_cast<long>(T) * H;
  float* query_rows = dqueries + static_cast<long>(T) * H;
  float* dy_rows = query_rows + static_cast<long>(T) * H_padded;
  float* weights = dy_rows + static_cast<long>(T) * H_padded;
  float* dscores = weights + static_cast<long>(a.U) * T;
  float* log_sums = dscores + static_cast<long>(a.U) * T;
  float* shared = log_sums + T;
  const auto &qs = a.q_strides, &ys = g.y_strides, &ds = g.dy_strides;
  const float* q_from = a.q + tile.b * qs.batch + tile.n * qs.head + tile.first_query * qs.row;
  const float* y_from = g.y + tile.b * ys.batch + tile.n * ys.head + tile.first_query * ys.row;
  const float* dy_from = g.dy + tile.b * ds.batch + tile.n * ds.head + tile.first_query * ds.row;
  pack_transposed(queries, T, tile, H, q_from, qs.row, qs.column, a.scale * LOG2_E);
  pack_transposed(dy, T, tile, H, dy_from, ds.row, ds.column, 1.0f);
  pack_rows(query_rows, H_padded, tile, H, q_from, qs.row, qs.column);
  pack_rows(dy_rows, H_padded, tile, H, dy_from, ds.row, ds.column);
  const float* log_sums_from = g.log_sums + (static_cast<long>(tile.b) * a.N + tile.n) * a.L + tile.first_query;
  for (int t = 0; t < tile.lanes; t++) {
    const bool there = t < tile.num_queries;
    log_sums[t] = there ? log_sums_from[t] : 0.0f;
    shared[t] = there ? dot(dy_from + t * ds.row, ds.column, y_from + t * ys.row, ys.column, H) : 0.0f;
  }
  for (long i = 0; i < static_cast<long>(T) * H; i++) dqueries[i] = 0.0f;
  const int S = num_keys(a, tile.b);
  for (int i = a.row_starts[row]; i < a.row_starts[row + 1]; i++) {
    const int first_key = a.columns[i] * a.U, count = least(a.U, S - first_key);
    if (count <= 0 || in_other_documents(a, tile, first_key, count)) continue;
    const float* k = key_row(a, tile.b, tile.group, first_key);
    const float* v = value_row(a, tile.b, tile.group, first_key);
    const auto &ks = a.k_strides, &vs = a.v_strides;
    // What any panel sees: beyond it there is nothing to add to dk and dv.
    Part all = {count, 0, tile.lanes, 0};
    for (int lane = 0; lane < tile.lanes; lane += PANEL) {
      const Part part = seen_part(a, tile, a.kinds[i], count, lane);
      const long start = part.start(T);
      const auto clear = [&](int first, int last) {
        for (int u = first; u < last; u++)
          for (int t = lane; t < part.last_lane; t += W) {
            store(weights + static_cast<long>(u) * T + t, Vec{});
            store(dscores + static_cast<long>(u) * T + t, Vec{});
          }
      };
      clear(0, part.first);
      clear(part.last, count);
      if (part.empty()) continue;
      all = {least(all.first, part.first), all.last > part.last ? all.last : part.last, least(all.first_lane, lane),
             part.last_lane};
      const float *keys = k + part.first * ks.row, *values = v + part.first * vs.row;
      multiply<false>({keys, ks.row, ks.column, queries + lane, T, weights + start, T}, part.keys(), part.lanes(), H);
      finish(a, tile, a.kinds[i], first_key, part, weights);
      multiply<false>({values, vs.row, vs.column, dy + lane, T, dscores + start, T}, part.keys(), part.lanes(), H);
      for (int u = part.first; u < part.last; u++)
        for (int t = lane; t < part.last_lane; t += W) {
          const long at = static_cast<long>(u) * T + t;
          const Vec weight = exp2(load(weights + at) - load(log_sums + t));
          store(weights + at, weight);
          store(dscores + at, weight * (load(dscores + at) - load(shared + t)) * a.scale);
        }
      multiply<true>({keys, ks.column, ks.row, dscores + start, T, dqueries + lane, T}, H, part.lanes(), part.keys());
    }
    if (all.empty()) continue;
    const long from = all.start(T), rows = static_cast<long>(all.first_lane) * H_padded;
    const long to = (first_key + all.first) * sums.row;
    multiply<true>({weights + from, T, 1, dy_rows + rows, H_padded, sums.dv + to, sums.row}, all.keys(), H, all.lanes());
    multiply<true>(
        {dscores + from, T, 1, query_rows + rows, H_padded, sums.dk + to, sums.row}, all.keys(), H, all.lanes());
  }
  float* dq = g.dq + ((static_cast<long>(tile.b) * a.L + tile.first_query) * a.N + tile.n) * H;
  transpose(dq, static_cast<long>(a.N) * H, dqueries, T, 1, H, tile.num_queries, 1.0f);
}

void backward(
    const Attention& a, const Gradients& g, int b, int group, int first_row, int last_row,
    const GradientSums& sums, float* scratch) {
  const int G = a.N / a.K;
  for (int n = group * G; n < (group + 1) * G; n++)
    for (int row = first_row; row < last_row; row++) backward_tile(a, g, tile_at(a, b, n, row), row, sums, scratch);
}

}  // namespace

extern const native::AttentionKernels attention;
const native::AttentionKernels attention = {NATIVE_NAME, scratch_floats, forward, decode, backward};

}  // namespace NATIVE_ISA
