// gemm_e4m3_1x128_e4m3_128x128_bf16_n7168_k16384_t64x64x128_w1x1x2_c1x1_s8_u1_r16_bfirst
//
// D[m, n] = sum over blocks of 128 along K of (A . B^T) * scale_a * scale_b
//
//   a: {dtype: e4m3, scale: 1x128}
//   b: {dtype: e4m3, scale: 128x128}
//   d: {dtype: bf16}
//   n: 7168
//   k: 16384
//   expected_m: 64
//
// Written by gemmgen 0.1.0; `gemmgen build spec.yaml` writes it again.

#define DEVICE __device__ __forceinline__
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;

// The tile of D that a CTA computes and its K step; the part of each of its consumer warpgroups.
constexpr uint32_t kTileM = 64, kTileN = 64, kTileK = 128;
constexpr uint32_t kWarpgroupM = 64, kWarpgroupN = 64;
constexpr uint32_t kConsumersN = 1, kConsumersM = 1;
constexpr uint32_t kConsumersK = 2;  // take K tiles in turn
constexpr uint32_t kConsumerWarps = 8;
constexpr uint32_t kThreads = 384;  // one producer warpgroup among them

// One wgmma covers a warpgroup's part; registers of a thread that it writes.
constexpr uint32_t kAccumulators = 32;
constexpr uint32_t kLeading = 16;  // bytes, of the matrix descriptors

// One FP32 scale for 1x128 elements of A, one for 128x128 of B.
constexpr uint32_t kScaleBlockKA = 128, kScaleBlockN = 128;

constexpr uint32_t kStages = 8, kStageBytes = 16384;  // a full barrier counts these bytes, at most

// Partial sums of an element; groups of four totals of a thread that one CTA adds up; the threads
// that hold a part.
constexpr uint32_t kParts = 2, kFragments = 8, kPartThreads = 128;
constexpr uint32_t kRasterBand = 16;  // tiles along M before the next column

// Shared memory: bytes of one element of each array, and where the array begins.
constexpr uint32_t kBytesA = 8192, kSmemA = 0;  // x 8
constexpr uint32_t kBytesB = 8192, kSmemB = 65536;  // x 8
constexpr uint32_t kBytesParts = 16384, kSmemParts = 131072;  // x 2
constexpr uint32_t kBytesScaleA = 384, kSmemScaleA = 163840;  // x 8
constexpr uint32_t kBytesFullBarrier = 8, kSmemFullBarrier = 166912;  // x 8
constexpr uint32_t kBytesEmptyBarrier = 8, kSmemEmptyBarrier = 166976;  // x 8

struct Problem {
  uint32_t m;
  static constexpr uint32_t n = 7168;
  static constexpr uint32_t k = 16384;
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
// A plain copy (PTX ISA, cp.async.bulk): all three are multiples of 16 bytes.
DEVICE void bulk_load(uint32_t smem, const float* source, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      ::"r"(smem), "l"(source), "r"(bytes), "r"(barrier) : "memory");
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
DEVICE float load_shared(uint32_t address) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
  return value;
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
// Those that arrive go on; those that wait do so until all threads of the CTA have come.
DEVICE void cta_arrive() { asm volatile("bar.arrive 0, %0;" ::"n"(kThreads) : "memory"); }
DEVICE void cta_wait() { asm volatile("bar.sync 0, %0;" ::"n"(kThreads) : "memory"); }
DEVICE void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(32 * kConsumerWarps) : "memory");
}
DEVICE void store_shared(uint32_t address, const float (&v)[4]) {
  asm volatile("st.shared.v4.f32 [%0], { %1, %2, %3, %4 };" ::"r"(address), "f"(v[0]), "f"(v[1]),
               "f"(v[2]), "f"(v[3]) : "memory");
}
DEVICE void load_shared(float (&v)[4], uint32_t address) {
  asm volatile("ld.shared.v4.f32 { %0, %1, %2, %3 }, [%4];"
               : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3]) : "r"(address) : "memory");
}

// ---- wgmma (PTX ISA, Asynchronous Warpgroup Level Matrix Instructions) ----------------------
// A thread's accumulator 4j + 2h + i is element (row, column) of the 64 x 64 result:
//   row = 16 * warp + 8 * h + lane / 4,  column = 8 * j + 2 * (lane % 4) + i
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D_ALL \
  D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24), D4(28)
#define D_TEXT \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
// low_a, low_b: numbers of the operands with the low words of its descriptors.
#define WGMMA(low_a, low_b, accumulate) \
  "mov.b64 a, { %" #low_a ", %40 };\nmov.b64 b, { %" #low_b ", %40 };\n" \
  "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {" D_TEXT "}, " \
  "a, b, " #accumulate ", 1, 1;\n"
// All wgmma of a promotion interval; the first overwrites, so that partial sums need no zeroing.
// NOTE: one statement, for the compiler takes its time over its registers.
DEVICE void wgmma(float (&d)[kAccumulators], uint32_t a, uint32_t b) {
  constexpr uint32_t kHigh = 1 << 30 | 1024 >> 4;  // 128-byte swizzle; from eight rows to the next
  asm volatile(
      "{\n.reg .pred first, later;\n.reg .b64 a, b;\n"
      "setp.ne.b32 first, 0, 0;\nsetp.eq.b32 later, 0, 0;\nwgmma.fence.sync.aligned;\n"
      WGMMA(32, 36, first) WGMMA(33, 37, later) WGMMA(34, 38, later) WGMMA(35, 39, later)
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

// Scales of A from one K tile to the next. In a stage they keep their place within a line of 128
// bytes, for a copy that moves them there takes longer.
DEVICE uint32_t scale_pitch(Problem problem) { return (problem.m + 3) / 4 * 4; }
DEVICE uint32_t low_word(const float* address) { return uint32_t(uint64_t(address)); }

DEVICE void init_barriers(Ring ring) {
  for (uint32_t i = 0; i < kStages; ++i, ring.advance()) {
    barrier_init(ring.full(), 1);
    barrier_init(ring.empty(), 32 * kConsumerWarps / kConsumersK);
  }
  // Visible to TMA before the first use.
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// ---- Which tile next ------------------------------------------------------------------------
// CTA i takes tiles i, i + grid, i + 2 grid, ...
struct TileScheduler {
  uint32_t rows, columns;  // of tiles
  uint32_t index = blockIdx.x;
  uint32_t m, n;  // first row and column of the tile

  DEVICE explicit TileScheduler(Problem problem)
      : rows(ceil_div(problem.m, kTileM)), columns(ceil_div(problem.n, kTileN)) {}
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
    m = (band + within % height) * kTileM;
    n = within / height * kTileN;
    index += gridDim.x;
  }
};

// ---- Producer: one thread keeps the ring full -----------------------------------------------
DEVICE void load_tiles(Ring ring, TileScheduler tile, Problem problem, const TensorMap& map_a,
                       const TensorMap& map_b, const float* scale_a) {
  uint64_t policy_b;  // L2 eviction priority
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_b));
  const uint32_t k_tiles = ceil_div(problem.k, kTileK);
  // The box of A has no more rows than A: those that TMA would fill with zeros are slow. What the
  // stage holds beyond reaches rows of D only that are not stored.
  const uint32_t rows_left_out = kTileM - min(kTileM, problem.m);
  const uint32_t stage_bytes = kStageBytes - rows_left_out * (kBytesA / kTileM);
  while (tile.next()) {
    // Scales are copied in fours.
    const uint32_t scale_bytes = min(kTileM, (problem.m - tile.m + 3) / 4 * 4) * 4;
    // NOTE: unrolled, the copies would need more registers than the producer keeps.
#pragma unroll 1
    for (uint32_t k_tile = 0; k_tile < k_tiles; ++k_tile, ring.advance()) {
      const uint32_t full = ring.full(), k = k_tile * kTileK;
      const float* scales = scale_a + k / kScaleBlockKA * scale_pitch(problem) + tile.m;
      barrier_wait(ring.empty(), ring.phase ^ 1);
      barrier_expect(full, stage_bytes + scale_bytes);
      tma_load(ring.b(), map_b, full, k, tile.n, policy_b);
      tma_load(ring.a(), map_a, full, k, tile.m);
      bulk_load(ring.scale_a() + low_word(scales) % 128, scales, scale_bytes, full);
    }
  }
}

// ---- Promotion: the partial sums of one K tile, scaled, join the FP32 totals ----------------
// A thread holds two rows, 8 apart, and four totals of every 8 columns: two rows by two columns.
using Totals = float[kWarpgroupN / 8][4];
using ScalesA = float[2];

DEVICE void load_scales_a(ScalesA& scales, uint32_t address) {
  scales[0] = load_shared(address), scales[1] = load_shared(address + 32);
}

DEVICE void multiply_scales(ScalesA& scales, const ScalesA& a, float b) {
  scales[0] = a[0] * b, scales[1] = a[1] * b;
}

DEVICE void promote(Totals& totals, const float (&accumulators)[kAccumulators],
                    const ScalesA& scales) {
#pragma unroll
  for (uint32_t i = 0; i < kAccumulators; ++i) {
    float& total = totals[i / 4][i % 4];
    total = fmaf(scales[i % 4 / 2], accumulators[i], total);
  }
}

// ---- Mainloop: one warpgroup, its K tiles of one tile -----------------------------------------
struct Reads {  // what a warpgroup reads of a stage
  uint32_t a, b;      // low words of the descriptors, in the first stage
  uint32_t scales_a;  // of this thread, in bytes
};

// A stage that its wgmma have read goes back to the producer.
DEVICE void release(Ring ring, uint32_t lane) {
  barrier_arrive(ring.empty());  // each lane: racecheck does not count __syncwarp
}

// The K tiles of all tiles go to the warpgroups in turn: k_tile is the next of this one.
DEVICE void mainloop(Totals& totals, Ring& ring, const Reads& reads, uint32_t scales_at,
                     uint32_t pitch, const float* scale_b, uint32_t k_tiles, uint32_t& k_tile,
                     uint32_t lane) {
  scales_at += k_tile * pitch;
  float accumulators[kAccumulators], next_b = 0;  // the scale of B is loaded one K tile ahead
  ScalesA scales_a, scales;
  if (k_tile < k_tiles) {
    next_b = load_global(scale_b + k_tile);
  }
#pragma unroll 1
  for (; k_tile < k_tiles; k_tile += kConsumersK) {
    barrier_wait(ring.full(), ring.phase);
    load_scales_a(scales_a, ring.scale_a() + scales_at % 128 + reads.scales_a);
    scales_at += kConsumersK * pitch;
    const uint32_t a = reads.a + ring.stage * (kBytesA / 16);
    const uint32_t b = reads.b + ring.stage * (kBytesB / 16);
    wgmma(accumulators, a, b);
    multiply_scales(scales, scales_a, next_b);  // while the tensor cores work
    next_b = load_global(scale_b + min(k_tile + kConsumersK, k_tiles - 1));
    wgmma_wait(accumulators);
    release(ring, lane);
    ring.advance(kConsumersK);
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
// Four totals of a thread, of 16 rows by 8 columns of a warp: two columns of two rows, 8 apart.
DEVICE void store_fragment(const float (&totals)[4], const TileScheduler& tile, uint16_t* d,
                           uint64_t pitch, Problem problem, uint32_t row, uint32_t column,
                           uint32_t lane) {
  row += lane / 4, column += 2 * (lane % 4);
  store_columns(tile, d, pitch, problem, row, column, pack(totals[0], totals[1]));
  store_columns(tile, d, pitch, problem, row + 8, column, pack(totals[2], totals[3]));
}

// ---- Reduction: the parts of a tile's sums, added in the order of their first K tiles ---------
// Fragment i of a part.
DEVICE uint32_t part(uint32_t base, uint32_t number, uint32_t i, uint32_t thread) {
  return base + kSmemParts + number * kBytesParts + (i * kPartThreads + thread) * 16;
}

// Hand over this warpgroup's part and wait for the others'.
DEVICE void exchange(const Totals& totals, uint32_t base, uint32_t number, uint32_t thread) {
  consumers_sync();  // the tile before has been added up
#pragma unroll
  for (uint32_t j = 0; j < kAccumulators / 4; ++j) {
    store_shared(part(base, number, j, thread), totals[j]);
  }
  consumers_sync();
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
gemm_e4m3_1x128_e4m3_128x128_bf16_n7168_k16384_t64x64x128_w1x1x2_c1x1_s8_u1_r16_bfirst(
    const __grid_constant__ TensorMap tensor_map_a,
    const __grid_constant__ TensorMap tensor_map_b,
    const float* __restrict__ scale_a,
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
  TileScheduler tile(problem);

  if (warp == kConsumerWarps && elect_one()) {
    prefetch(tensor_map_a), prefetch(tensor_map_b);
    init_barriers(ring);
  }
  __syncwarp();
  if (warp >= kConsumerWarps) {
    cta_arrive();  // the first loads wait for no consumer
    if (warp == kConsumerWarps && elect_one()) {
      load_tiles(ring, tile, problem, tensor_map_a, tensor_map_b, scale_a);
    }
  } else {
    cta_wait();
    const uint32_t k_tiles = ceil_div(problem.k, kTileK);
    const uint32_t column = warp / 4 % kConsumersN * kWarpgroupN;  // within the tile
    const uint32_t row = warp / 4 / kConsumersN % kConsumersM * kWarpgroupM;
    const uint32_t scales_a = 4 * (row + warp % 4 * 16 + lane / 4);
    Reads reads{descriptor_low(ring.base + kSmemA + row * kTileK, kLeading),
                descriptor_low(ring.base + kSmemB + column * kTileK, kLeading), scales_a};
    const uint32_t turn = warp / 4 / (kConsumersN * kConsumersM);
    uint32_t k_tile = turn;  // the next of this warpgroup
    ring.advance(turn);
    const uint32_t thread = threadIdx.x % kPartThreads;
    while (tile.next()) {
      // A tile that hangs over the edge of B may reach past its last block.
      const uint32_t blocks = ceil_div(problem.n, kScaleBlockN);
      uint64_t block = min((tile.n + column) / kScaleBlockN, blocks - 1);
      const float* scales = scale_b + block * ceil_div(problem.k, kTileK);
      const uint32_t number = k_tile;  // of this warpgroup's part
      Totals totals = {};
      mainloop(totals, ring, reads, low_word(scale_a + tile.m), 4 * scale_pitch(problem), scales,
               k_tiles, k_tile, lane);
      const uint32_t first_row = tile.m + row + warp % 4 * 16, first_column = tile.n + column;
      exchange(totals, ring.base, number, thread);
      for (uint32_t i = turn; i < kFragments; i += kConsumersK) {
        const uint32_t j = i;  // fragment of the tile
        if (j >= kAccumulators / 4) break;
        float sum[4] = {};
        add_parts(sum, ring.base, i, thread);
        store_fragment(sum, tile, d, pitch_d, problem, first_row, first_column + 8 * j, lane);
      }
    }
  }
}
