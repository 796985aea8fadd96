// Steps of softmax attention under a pattern, for Metal and CUDA; what is computed is said in zoo/ops/tiled.py.
//
// A threadgroup of THREADS works on a tile of TILE rows (queries; in the kernel of dk and dv, keys), ROWS of them for
// each SIMD group of 32. It goes through the tiles of TILE columns in which the pattern allows anything; each lane of a
// SIMD group has one column. Columns are staged in threadgroup memory, CHUNK numbers of each head_dim at a time, as
// [CHUNK, STRIDE]: the lanes read it along either axis without two of them meeting in a bank.
//
// Letters: B batch, L query length, S key length, N query heads, K key/value heads, H head_dim.

#define TILE 32
#define ROWS 8
#define THREADS (TILE / ROWS * 32)
#define STRIDE (TILE + 1)
#define CHUNK (HEAD_DIM < 64 ? HEAD_DIM : 64)
#define SLOTS ((HEAD_DIM + TILE - 1) / TILE)
// Below every true score, above nothing that is hidden.
#define LOWEST -1e30f

// What `sizes` holds.
#define SIZE_L sizes[0]
#define SIZE_S sizes[1]
#define SIZE_N sizes[2]
#define SIZE_K sizes[3]
#define HAS_LENGTHS sizes[4]
#define HAS_SEGMENTS sizes[5]
#define HAS_SLOPES sizes[6]
#define HAS_SINKS sizes[7]
// Rows of the batch that `dense` and the positions have, 1 or B; 0 without `dense`.
#define DENSE_ROWS sizes[8]
#define QUERY_POSITION_ROWS sizes[9]
#define KEY_POSITION_ROWS sizes[10]

#define FOR_CHUNKS for (int first_dim = 0; first_dim < HEAD_DIM; first_dim += CHUNK)

// Copies a chunk of the rows from `first` on of source [num_rows, HEAD_DIM], and zeros beyond them.
#define STAGE(source, base, first, num_rows)                                                                \
  BARRIER;                                                                                                  \
  for (int at = thread_index; at < TILE * CHUNK; at += THREADS) {                                           \
    const int staged_row = at / CHUNK, dim = at % CHUNK;                                                    \
    const bool there = (first) + staged_row < (num_rows) && first_dim + dim < HEAD_DIM;                     \
    staged[dim * STRIDE + staged_row] =                                                                     \
        there ? float(source[(base) + long((first) + staged_row) * HEAD_DIM + first_dim + dim]) : float(0); \
  }                                                                                                         \
  BARRIER

// Adds to result[r] the product of row r of this SIMD group, in `source`, with the lane's column.
#define ADD_DOTS(result, source, base, num_rows)                                                            \
  for (int dim = 0; dim < CHUNK && first_dim + dim < HEAD_DIM; ++dim) {                                     \
    const float column = staged[dim * STRIDE + lane];                                                       \
    for (int r = 0; r < ROWS; ++r) {                                                                        \
      const int row = first_row + r < (num_rows) ? first_row + r : (num_rows) - 1;                          \
      result[r] += float(source[(base) + long(row) * HEAD_DIM + first_dim + dim]) * column;                 \
    }                                                                                                       \
  }

// Adds to sums[r] the columns, each weighted by what its lane has in weights[r]; a lane has every 32nd number of H.
#define ADD_COLUMNS(sums, weights)                                                                          \
  for (int part = 0; part * TILE < CHUNK && first_dim + part * TILE < HEAD_DIM; ++part) {                   \
    const int dim = part * TILE + lane;                                                                     \
    for (int column = 0; column < TILE; ++column) {                                                         \
      const float number = dim < CHUNK ? staged[dim * STRIDE + column] : 0.0f;                              \
      for (int r = 0; r < ROWS; ++r) {                                                                      \
        sums[r * SLOTS + first_dim / TILE + part] += simd_shuffle(weights[r], column) * number;             \
      }                                                                                                     \
    }                                                                                                       \
  }

// Writes sums[r] times `factor`, which may name r, as rows of target [num_rows, HEAD_DIM].
#define WRITE_ROWS(target, base, num_rows, sums, factor)                                                    \
  for (int r = 0; r < ROWS; ++r) {                                                                          \
    for (int slot = 0; slot < SLOTS; ++slot) {                                                              \
      const int dim = slot * TILE + lane;                                                                   \
      if (first_row + r < (num_rows) && dim < HEAD_DIM) {                                                   \
        target[(base) + long(first_row + r) * HEAD_DIM + dim] = sums[r * SLOTS + slot] * (factor);          \
      }                                                                                                     \
    }                                                                                                       \
  }

// Whether a query may attend to a key: `kind` is 0 where the pattern allows every pair of a tile, else 1 + the number
// of its mask [keys, queries].
#define IS_VISIBLE(query, key, kind)                                                                        \
  ((query) < SIZE_L && (key) < SIZE_S &&                                                                    \
   ((kind) == 0 || masks[(((kind) - 1) * TILE + (key) % TILE) * TILE + (query) % TILE] != 0) &&             \
   (!HAS_LENGTHS || (key) < lengths[batch]) &&                                                              \
   (!HAS_SEGMENTS || segments[long(batch) * SIZE_L + (query)] == segments[long(batch) * SIZE_L + (key)]) && \
   (!DENSE_ROWS || dense[(long(batch % DENSE_ROWS) * SIZE_S + (key)) * SIZE_L + (query)] != 0))

// The score of a visible pair, of the product of its query and key.
#define SCORE(product, query, key)                                                                          \
  ((product) * scale[0] -                                                                                   \
   (HAS_SLOPES ? slopes[head] * fabs(float(                                                                 \
                     query_positions[long(batch % QUERY_POSITION_ROWS) * SIZE_L + (query)] -                \
                     key_positions[long(batch % KEY_POSITION_ROWS) * SIZE_S + (key)]))                      \
               : 0.0f))
