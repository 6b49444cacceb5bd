// gemm_e4m3_1x128_e4m3_128x128_bf16_n2112_k7168_swapt16x64x128_w1x1x3_c1x1x2_s12_u1_ew_r16_bfirst
//
// D[m, n] = sum over blocks of 128 along K of (A . B^T) * scale_a * scale_b
//
//   a: {dtype: e4m3, scale: 1x128}
//   b: {dtype: e4m3, scale: 128x128}
//   d: {dtype: bf16}
//   n: 2112
//   k: 7168
//   expected_m: 16
//
// Written by gemmgen 0.1.0; `gemmgen build spec.yaml` writes it again.

#define DEVICE __device__ __forceinline__
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;

// The tile of D that a CTA computes and its K step; the part of each of its consumer warpgroups.
constexpr uint32_t kTileM = 16, kTileN = 64, kTileK = 128;
constexpr uint32_t kWarpgroupN = 64;  // by all rows
constexpr uint32_t kConsumersN = 1;
constexpr uint32_t kConsumersK = 3;  // take K tiles in turn
constexpr uint32_t kConsumerWarps = 12;
constexpr uint32_t kThreads = 512;  // one producer warpgroup among them

// One wgmma covers a warpgroup's part; registers of a thread that it writes.
constexpr uint32_t kAccumulators = 8;
constexpr uint32_t kLeading = 16;  // bytes, of the matrix descriptors

// One FP32 scale for 1x128 elements of A, one for 128x128 of B.
constexpr uint32_t kScaleBlockKA = 128, kScaleBlockN = 128;

constexpr uint32_t kStages = 12, kStageBytes = 10304;  // a full barrier counts these bytes, at most

// Partial sums of an element; groups of four totals of a thread that one CTA adds up; the threads
// that hold a part.
constexpr uint32_t kParts = 6, kFragments = 1, kPartThreads = 128;
constexpr uint32_t kClusterM = 1, kClusterN = 1, kClusterSize = 2;
constexpr uint32_t kClusterK = 2;  // CTAs that share the K of one tile
constexpr uint32_t kRasterBand = 16;  // tiles along M before the next column

// Shared memory: bytes of one element of each array, and where the array begins.
constexpr uint32_t kBytesA = 2048, kSmemA = 0;  // x 12
constexpr uint32_t kBytesB = 8192, kSmemB = 24576;  // x 12
constexpr uint32_t kBytesParts = 2048, kSmemParts = 122880;  // x 6
constexpr uint32_t kBytesScaleA = 128, kSmemScaleA = 135168;  // x 12
constexpr uint32_t kBytesFullBarrier = 8, kSmemFullBarrier = 136704;  // x 12
constexpr uint32_t kBytesEmptyBarrier = 8, kSmemEmptyBarrier = 136800;  // x 12
constexpr uint32_t kSmemPartsFull = 136896;
constexpr uint32_t kSmemPartsEmpty = 136904;

struct Problem {
  uint32_t m;
  static constexpr uint32_t n = 2112;
  static constexpr uint32_t k = 7168;
};

__device__ constexpr uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// ---- mbarrier (PTX ISA, Parallel Synchronization and Communication Instructions) ------------
DEVICE void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
DEVICE void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// NOTE: no `.release.cluster` here: it would wait for all that a thread has written. What other
// CTAs write again was read by this thread's warp, and added up.
DEVICE void barrier_arrive(uint32_t barrier, uint32_t cta) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier), "r"(cta) : "memory");
}
DEVICE void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
DEVICE void barrier_wait(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra AGAIN;\n}" ::"r"(barrier), "r"(phase) : "memory");
}

// ---- TMA (PTX ISA, cp.async.bulk.tensor) ----------------------------------------------------
// A box that hangs over an edge reads zeros there and writes nothing; its barrier counts all of it.

struct alignas(64) TensorMap {
  uint64_t opaque[16];
};
DEVICE void tma_load(uint32_t smem, const TensorMap& map, uint32_t barrier,
                     uint32_t x, uint32_t y, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, { %2, %3 }], [%4], %5;" ::"r"(smem),
      "l"(&map), "r"(x), "r"(y), "r"(barrier), "l"(policy) : "memory");
}
DEVICE void tma_load(uint32_t smem, const TensorMap& map, uint32_t barrier,
                     uint32_t x, uint32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, { %2, %3 }], [%4];" ::"r"(smem),
      "l"(&map), "r"(x), "r"(y), "r"(barrier) : "memory");
}
DEVICE void prefetch(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// ---- Warps and registers --------------------------------------------------------------------
DEVICE bool elect_one() {
  uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(elected));
  return elected;
}
// NOTE: volatile, or the compiler moves a load that was issued early down to its first use.
DEVICE float load_global(const float* address) {
  float value;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(value) : "l"(address));
  return value;
}

DEVICE uint32_t pack(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
DEVICE void load_shared_pair(float (&pair)[2], uint32_t address) {
  asm volatile("ld.shared.v2.f32 { %0, %1 }, [%2];"
               : "=f"(pair[0]), "=f"(pair[1]) : "r"(address) : "memory");
}
// The transpose of an 8x8 matrix of 16-bit elements, of which a thread holds two in one row.
DEVICE uint32_t transpose(uint32_t elements) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(elements));
  return transposed;
}
DEVICE uint32_t remote(uint32_t address, uint32_t cta) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(cta));
  return there;
}
// NOTE: the barrier counts what has landed (PTX ISA, st.async). Ordinary stores would need a
// `.release.cluster` behind them, which waits for all that a thread has written.
DEVICE void store_remote(uint32_t address, const float (&v)[4], uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], "
      "{ %1, %2, %3, %4 }, [%5];" ::"r"(address), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]),
      "r"(barrier) : "memory");
}
DEVICE void barrier_wait_cluster(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra AGAIN;\n}" ::"r"(barrier), "r"(phase) : "memory");
}
// The barriers are made visible by their own fence: nothing else is released.
DEVICE void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.aligned;" ::: "memory"); }
DEVICE void load_shared(float (&v)[4], uint32_t address) {
  asm volatile("ld.shared.v4.f32 { %0, %1, %2, %3 }, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3]) : "r"(address) : "memory");
}

// ---- wgmma (PTX ISA, Asynchronous Warpgroup Level Matrix Instructions) ----------------------
// A thread's accumulator 4j + 2h + i is element (row, column) of the 64 x 16 result:
//   row = 16 * warp + 8 * h + lane / 4,  column = 8 * j + 2 * (lane % 4) + i
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D_ALL \
  D4(0), D4(4)
#define D_TEXT \
  "%0, %1, %2, %3, %4, %5, %6, %7"
// low_a, low_b: numbers of the operands with the low words of its descriptors.
#define WGMMA(low_a, low_b, accumulate) \
  "mov.b64 a, { %" #low_a ", %16 };\nmov.b64 b, { %" #low_b ", %16 };\n" \
  "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {" D_TEXT "}, " \
  "a, b, " #accumulate ", 1, 1;\n"
// All wgmma of a promotion interval; the first overwrites, so that partial sums need no zeroing.
// NOTE: one statement, for the compiler takes its time over its registers.
DEVICE void wgmma(float (&d)[kAccumulators], uint32_t a, uint32_t b) {
  constexpr uint32_t kHigh = 1 << 30 | 1024 >> 4;  // 128-byte swizzle; from eight rows to the next
  asm volatile(
      "{\n.reg .pred first, later;\n.reg .b64 a, b;\n"
      "setp.ne.b32 first, 0, 0;\nsetp.eq.b32 later, 0, 0;\nwgmma.fence.sync.aligned;\n"
      WGMMA(8, 12, first) WGMMA(9, 13, later) WGMMA(10, 14, later) WGMMA(11, 15, later)
      "wgmma.commit_group.sync.aligned;\n}"
      : D_ALL
      : "r"(a), "r"(a + 2), "r"(a + 4), "r"(a + 6),
        "r"(b), "r"(b + 2), "r"(b + 4), "r"(b + 6), "n"(kHigh)
      : "memory");
}
// NOTE: names the accumulators. The compiler takes wgmma for synchronous, and would be free to read
// these registers while it is under way.
DEVICE void wgmma_wait(float (&d)[kAccumulators]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : D_ALL::"memory");
}
// The low word of a matrix descriptor, in units of 16 bytes.
DEVICE uint32_t descriptor_low(uint32_t address, uint32_t leading) {
  return (address & 0x3ffff) >> 4 | leading >> 4 << 16;
}

// ---- The ring of stages between the producer and the consumers ------------------------------
struct Ring {
  uint32_t base;  // of shared memory
  uint32_t stage = 0;
  uint32_t phase = 0;  // parity with which the stage's full barrier completes next

  DEVICE void advance(uint32_t stages = 1) {
    stage += stages;
    if (stage >= kStages) {
      stage -= kStages;
      phase ^= 1;
    }
  }
  DEVICE uint32_t a() const { return base + kSmemA + kBytesA * stage; }
  DEVICE uint32_t b() const { return base + kSmemB + kBytesB * stage; }
  DEVICE uint32_t scale_a() const { return base + kSmemScaleA + kBytesScaleA * stage; }
  DEVICE uint32_t full() const { return base + kSmemFullBarrier + kBytesFullBarrier * stage; }
  DEVICE uint32_t empty() const { return base + kSmemEmptyBarrier + kBytesEmptyBarrier * stage; }
};

DEVICE void init_barriers(Ring ring) {
  for (uint32_t i = 0; i < kStages; ++i, ring.advance()) {
    barrier_init(ring.full(), 1);
    barrier_init(ring.empty(), kConsumerWarps / kConsumersK);
  }
  barrier_init(ring.base + kSmemPartsEmpty, kConsumerWarps * kClusterK);
  barrier_init(ring.base + kSmemPartsFull, 1);
  // Visible to TMA and to the cluster before the first use.
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// ---- Which tile next ------------------------------------------------------------------------
// Cluster i takes tiles i, i + grid, i + 2 grid, ...
struct TileScheduler {
  uint32_t rows, columns;  // of cluster tiles
  uint32_t rank_m, rank_n;  // of this CTA in its cluster
  uint32_t index = blockIdx.x / kClusterSize;
  uint32_t m, n;  // first row and column of the tile

  DEVICE TileScheduler(Problem problem, uint32_t rank)
      : rows(ceil_div(problem.m, kTileM * kClusterM)),
        columns(ceil_div(problem.n, kTileN * kClusterN)),
        rank_m(rank % kClusterM),
        rank_n(rank / kClusterM) {}
  DEVICE bool next() {
    if (index >= rows * columns) return false;
    place(index, rows);
    return true;
  }

  // Tile number `tile` of rows x columns, down bands of kRasterBand tiles along M and column by
  // column, so that CTAs that run at the same time share rows of A and of B in L2.
  DEVICE void place(uint32_t tile, uint32_t rows) {
    const uint32_t full = min(kRasterBand, rows);  // no product beyond the number of tiles
    const uint32_t band = tile / (full * columns) * full;
    const uint32_t within = tile % (full * columns);
    const uint32_t height = min(full, rows - band);
    m = ((band + within % height) * kClusterM + rank_m) * kTileM;
    n = (within / height * kClusterN + rank_n) * kTileN;
    index += gridDim.x / kClusterSize;
  }
};

// ---- Which K tiles are a CTA's: ranges in the order of the ranks, the first ones the longer ---
DEVICE uint32_t first_k_tile(Problem problem, uint32_t rank) {
  const uint32_t k_tiles = ceil_div(problem.k, kTileK);
  return k_tiles / kClusterK * rank + min(rank, k_tiles % kClusterK);
}

// ---- Producer: one thread keeps the ring full -----------------------------------------------
DEVICE void load_tiles(Ring ring, TileScheduler tile, Problem problem, const TensorMap& map_a,
                       const TensorMap& map_b, const TensorMap& map_scale_a, uint32_t rank) {
  uint64_t policy_b;  // L2 eviction priority
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_b));
  const uint32_t first = first_k_tile(problem, rank);
  const uint32_t k_tiles = first_k_tile(problem, rank + 1) - first;
  // The box of A has no more rows than A: those that TMA would fill with zeros are slow. What the
  // stage holds beyond reaches rows of D only that are not stored.
  const uint32_t rows_left_out = kTileM - min(kTileM, problem.m);
  // Scales are copied in fours.
  const uint32_t scale_bytes = rows_left_out / 4 * 16;
  const uint32_t stage_bytes = kStageBytes - rows_left_out * (kBytesA / kTileM) - scale_bytes;
  while (tile.next()) {
    for (uint32_t k_tile = 0; k_tile < k_tiles; ++k_tile, ring.advance()) {
      const uint32_t full = ring.full(), k = (first + k_tile) * kTileK;
      barrier_wait(ring.empty(), ring.phase ^ 1);
      barrier_expect(full, stage_bytes);
      tma_load(ring.b(), map_b, full, k, tile.n, policy_b);
      tma_load(ring.a(), map_a, full, k, tile.m);
      tma_load(ring.scale_a(), map_scale_a, full, tile.m, k / kScaleBlockKA);
    }
  }
}

// ---- Promotion: the partial sums of one K tile, scaled, join the FP32 totals ----------------
// Rows of B lie on wgmma's M axis and rows of A on its N axis. A thread holds four totals of every
// 8 rows of D: rows 2 (lane % 4) and the next, by columns lane / 4 and 8 further of its warp's 16.
using Totals = float[kTileM / 8][4];
using ScalesA = float[kTileM / 8][2];

DEVICE void load_scales_a(ScalesA& scales, uint32_t address) {
#pragma unroll
  for (uint32_t j = 0; j < kTileM / 8; ++j) {
    load_shared_pair(scales[j], address + 32 * j);
  }
}

DEVICE void multiply_scales(ScalesA& scales, const ScalesA& a, float b) {
#pragma unroll
  for (uint32_t j = 0; j < kTileM / 8; ++j) {
    scales[j][0] = a[j][0] * b, scales[j][1] = a[j][1] * b;
  }
}

DEVICE void promote(Totals& totals, const float (&accumulators)[kAccumulators],
                    const ScalesA& scales) {
#pragma unroll
  for (uint32_t i = 0; i < kAccumulators; ++i) {
    float& total = totals[i / 4][i % 4];
    total = fmaf(scales[i / 4][i % 2], accumulators[i], total);
  }
}

// ---- Mainloop: one warpgroup, its K tiles of one tile -----------------------------------------
struct Reads {  // what a warpgroup reads of a stage
  uint32_t a, b;      // low words of the descriptors, in the first stage
  uint32_t scales_a;  // of this thread, in bytes
};

// A stage that its wgmma have read goes back to the producer.
DEVICE void release(Ring ring, uint32_t lane) {
  if (lane == 0) barrier_arrive(ring.empty());
}

// The K tiles of all tiles go to the warpgroups in turn: k_tile is the next of this one.
DEVICE void mainloop(Totals& totals, Ring& ring, const Reads& reads, const float* scale_b,
                     uint32_t k_tiles, uint32_t& k_tile, uint32_t lane) {
  float accumulators[kAccumulators], next_b = 0;  // the scale of B is loaded one K tile ahead
  ScalesA scales_a, scales;
  if (k_tile < k_tiles) {
    next_b = load_global(scale_b + k_tile);
    barrier_wait(ring.full(), ring.phase);
    load_scales_a(scales_a, ring.scale_a() + reads.scales_a);
  }
#pragma unroll 1
  for (; k_tile < k_tiles; k_tile += kConsumersK) {
    const uint32_t a = reads.a + ring.stage * (kBytesA / 16);
    const uint32_t b = reads.b + ring.stage * (kBytesB / 16);
    __syncwarp();  // all lanes have read their scales, before release() tells
    wgmma(accumulators, b, a);
    multiply_scales(scales, scales_a, next_b);  // while the tensor cores work
    next_b = load_global(scale_b + min(k_tile + kConsumersK, k_tiles - 1));
    wgmma_wait(accumulators);
    release(ring, lane);
    ring.advance(kConsumersK);
    // Before promotion, so that the wgmma of the next K tile can follow it at once.
    if (k_tile + kConsumersK < k_tiles) {
      barrier_wait(ring.full(), ring.phase);
      load_scales_a(scales_a, ring.scale_a() + reads.scales_a);
    }
    promote(totals, accumulators, scales);
  }
  k_tile -= k_tiles;  // counts from the first K tile of the next tile on
}

// ---- Epilogue: totals to bf16, from registers to D -------------------------------------------
DEVICE void store_columns(const TileScheduler& tile, uint16_t* d, uint64_t pitch, Problem problem,
                          uint32_t row, uint32_t column, uint32_t two_columns) {
  if (row >= problem.m || column >= problem.n) return;
  const uint64_t rows = row;  // of D before this one
  *reinterpret_cast<uint32_t*>(d + rows * pitch + column) = two_columns;
}
// Four totals of a thread, of 8 rows by 16 columns of a warp: transposed, two columns of row
// lane / 4, and two that are 8 further.
DEVICE void store_fragment(const float (&totals)[4], const TileScheduler& tile, uint16_t* d,
                           uint64_t pitch, Problem problem, uint32_t row, uint32_t column,
                           uint32_t lane) {
  const uint32_t left = transpose(pack(totals[0], totals[1]));
  const uint32_t right = transpose(pack(totals[2], totals[3]));
  row += lane / 4, column += 2 * (lane % 4);
  store_columns(tile, d, pitch, problem, row, column, left);
  store_columns(tile, d, pitch, problem, row, column + 8, right);
}

// ---- Reduction: the parts of a tile's sums, added in the order of their first K tiles ---------
// Fragment i of a part: fragment i * kClusterK + rank of the tile, for this CTA adds up no other.
DEVICE uint32_t part(uint32_t base, uint32_t number, uint32_t i, uint32_t thread) {
  return base + kSmemParts + number * kBytesParts + (i * kPartThreads + thread) * 16;
}

// This warp has added up the tile before: parts of the next may take the place.
DEVICE void offer_parts(uint32_t base, uint32_t lane) {
  __syncwarp();
  if (lane < kClusterK) barrier_arrive(base + kSmemPartsEmpty, lane);
}

// Hand over this warpgroup's part and wait for the others'.
DEVICE void exchange(const Totals& totals, uint32_t base, uint32_t number, uint32_t thread,
                     uint32_t rank, uint32_t phase) {
  constexpr uint32_t kTotals = kAccumulators / 4;  // fragments of a part of the tile
  barrier_wait(base + kSmemPartsEmpty, phase);
  if (threadIdx.x == 0) {
    const uint32_t fragments = (kTotals - rank + kClusterK - 1) / kClusterK;
    barrier_expect(base + kSmemPartsFull, fragments * kParts * kPartThreads * 16);
  }
#pragma unroll
  for (uint32_t j = 0; j < kTotals; ++j) {
    const uint32_t cta = j % kClusterK;
    store_remote(remote(part(base, number, j / kClusterK, thread), cta), totals[j],
                 remote(base + kSmemPartsFull, cta));
  }
  barrier_wait_cluster(base + kSmemPartsFull, phase);
}

DEVICE void add_parts(float (&sum)[4], uint32_t base, uint32_t i, uint32_t thread) {
#pragma unroll
  for (uint32_t number = 0; number < kParts; ++number) {
    float value[4];
    load_shared(value, part(base, number, i, thread));
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) sum[j] += value[j];
  }
}

// ---- The kernel -----------------------------------------------------------------------------
extern "C" __global__ void __launch_bounds__(kThreads, 1)
gemm_e4m3_1x128_e4m3_128x128_bf16_n2112_k7168_swapt16x64x128_w1x1x3_c1x1x2_s12_u1_ew_r16_bfirst(
    const __grid_constant__ TensorMap tensor_map_a,
    const __grid_constant__ TensorMap tensor_map_b,
    const __grid_constant__ TensorMap tensor_map_scale_a,
    const float* __restrict__ scale_b,
    uint16_t* d,
    uint64_t pitch_d,
    uint32_t m) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Ring ring{uint32_t(__cvta_generic_to_shared(shared))};
  // NOTE: through a shuffle, so that the compiler knows it to be uniform in the warp.
  const uint32_t warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
  const uint32_t lane = threadIdx.x % 32;
  const Problem problem{m};
  uint32_t rank;  // of this CTA in the cluster
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  TileScheduler tile(problem, 0);

  if (warp == kConsumerWarps && elect_one()) {
    prefetch(tensor_map_a), prefetch(tensor_map_b), prefetch(tensor_map_scale_a);
    init_barriers(ring);
  }
  __syncwarp();
  if (warp >= kConsumerWarps) {
    cluster_arrive();  // the first loads wait for no consumer
    if (warp == kConsumerWarps && elect_one()) {
      load_tiles(ring, tile, problem, tensor_map_a, tensor_map_b, tensor_map_scale_a, rank);
    }
    __syncwarp();
    cluster_wait();
  } else {
    cluster_arrive();
    cluster_wait();
    const uint32_t first = first_k_tile(problem, rank);
    const uint32_t k_tiles = first_k_tile(problem, rank + 1) - first;
    const uint32_t column = warp / 4 % kConsumersN * kWarpgroupN;  // within the tile
    const uint32_t scales_a = 4 * (2 * (lane % 4));
    Reads reads{descriptor_low(ring.base + kSmemA, kLeading),
                descriptor_low(ring.base + kSmemB + column * kTileK, kLeading), scales_a};
    const uint32_t turn = warp / 4 / (kConsumersN);
    uint32_t k_tile = turn;  // the next of this warpgroup
    ring.advance(turn);
    const uint32_t thread = threadIdx.x % kPartThreads;
    uint32_t phase = 0;  // of the exchange of parts
    while (tile.next()) {
      offer_parts(ring.base, lane);
      // A tile that hangs over the edge of B may reach past its last block.
      const uint32_t blocks = ceil_div(problem.n, kScaleBlockN);
      uint64_t block = min((tile.n + column) / kScaleBlockN, blocks - 1);
      const float* scales = scale_b + block * ceil_div(problem.k, kTileK) + first;
      const uint32_t number = rank * kConsumersK + k_tile;  // of this warpgroup's part
      Totals totals = {};
      mainloop(totals, ring, reads, scales, k_tiles, k_tile, lane);
      const uint32_t first_row = tile.m, first_column = tile.n + column + warp % 4 * 16;
      exchange(totals, ring.base, number, thread, rank, phase);
      for (uint32_t i = turn; i < kFragments; i += kConsumersK) {
        const uint32_t j = i * kClusterK + rank;  // fragment of the tile
        if (j >= kAccumulators / 4) break;
        float sum[4] = {};
        add_parts(sum, ring.base, i, thread);
        store_fragment(sum, tile, d, pitch_d, problem, first_row + 8 * j, first_column, lane);
      }
      phase ^= 1;
    }
  }
}
