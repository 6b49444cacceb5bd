// gemm_e4m3_1x128_e4m3_128x128_bf16_n32768_k512_t192x128x128_w3x1_c1x1_s6_u4_ew_late_astat
//
// D[m, n] = sum over blocks of 128 along K of (A . B^T) * scale_a * scale_b
//
//   a: {dtype: e4m3, scale: 1x128}
//   b: {dtype: e4m3, scale: 128x128}
//   d: {dtype: bf16}
//   n: 32768
//   k: 512
//   expected_m: 4096
//
// Written by gemmgen 0.1.0; `gemmgen build spec.yaml` writes it again.

#define DEVICE __device__ __forceinline__
using uint32_t = unsigned int;
using uint64_t = unsigned long;

// The tile of D that a CTA computes and its K step; the part of each of its consumer warpgroups.
constexpr uint32_t kTileM = 192, kTileN = 128, kTileK = 128;
constexpr uint32_t kConsumersM = 3, kConsumersN = 1;
constexpr uint32_t kWarpgroupM = kTileM / kConsumersM, kWarpgroupN = kTileN / kConsumersN;
constexpr uint32_t kConsumerWarps = 4 * kConsumersM * kConsumersN;
constexpr uint32_t kThreads = 512;  // one producer warpgroup among them

// One wgmma, how many of them cover a warpgroup's part, registers of a thread that one writes.
constexpr uint32_t kMmaM = 64, kMmaN = 128;
constexpr uint32_t kWavesM = 1, kWavesN = 1, kAccumulators = 64;

// Operands in shared memory: rows of one swizzle span; what the matrix descriptors count in.
constexpr uint32_t kRowBytes = 128;
constexpr uint32_t kLeadingA = 16, kLeadingB = 16;  // bytes

constexpr uint32_t kIntervalK = 128;  // between two promotions
// FP32 scales: for A 1x128, for B 128x128 (rows x elements of K that share one).
constexpr uint32_t kScaleBlockKA = 128;
constexpr uint32_t kScaleBlockN = 128;
constexpr uint32_t kScaleBlocksB = 1;  // that the columns of one warpgroup touch
constexpr uint32_t kScaleBlockKB = 128;

constexpr uint32_t kStages = 6, kStageBytes = 16384;  // a full barrier counts these bytes
// A's rows of a tile stay in shared memory, all their K tiles; each comes with a stage of B, once.
constexpr uint32_t kTilesA = 4, kTileBytesA = 25344;  // with the scales
// A warp stores 16 rows of kStoreColumns by one TMA copy out of one of its buffers.
constexpr uint32_t kStoreColumns = 64, kStoreBuffers = 1;
constexpr uint32_t kStoreSwizzleMask = 7;  // of 16-byte chunks within a row

// Shared memory: bytes of one element of each array, and where the array begins.
constexpr uint32_t kBytesA = 24576, kSmemA = 0;  // x 4
constexpr uint32_t kBytesB = 16384, kSmemB = 98304;  // x 6
constexpr uint32_t kBytesD = 2048, kSmemD = 196608;  // x 12
constexpr uint32_t kBytesScaleA = 768, kSmemScaleA = 221184;  // x 4
constexpr uint32_t kBytesFullBarrier = 8, kSmemFullBarrier = 224256;  // x 6
constexpr uint32_t kBytesEmptyBarrier = 8, kSmemEmptyBarrier = 224304;  // x 6

struct Problem {
  uint32_t m;
  static constexpr uint32_t n = 32768;
  static constexpr uint32_t k = 512;
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
                     uint32_t x, uint32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, { %2, %3 }], [%4];" ::"r"(smem),
      "l"(&map), "r"(x), "r"(y), "r"(barrier) : "memory");
}
DEVICE void tma_store(const TensorMap& map, uint32_t smem, uint32_t x, uint32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, { %2, %3 }], [%1];\n"
      "cp.async.bulk.commit_group;" ::"l"(&map), "r"(smem), "r"(x), "r"(y) : "memory");
}
template <uint32_t kPending>
DEVICE void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
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
// Undefined where it does not exist. NOTE: as a branch, it would keep the value before beside the
// next, and the compiler would move scales about between the wgmma of two waves.
DEVICE float load_global_if(bool exists, const float* address) {
  float value;
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\n@p ld.global.nc.f32 %0, [%2];\n}"
               : "=f"(value) : "r"(uint32_t(exists)), "l"(address));
  return value;
}

// ---- wgmma (PTX ISA, Asynchronous Warpgroup Level Matrix Instructions) ----------------------
// A thread's accumulator 4j + 2h + i is element (row, column) of the 64 x 128 result:
//   row = 16 * warp + 8 * h + lane / 4,  column = 8 * j + 2 * (lane % 4) + i
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D_ALL \
  D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24), D4(28), \
  D4(32), D4(36), D4(40), D4(44), D4(48), D4(52), D4(56), D4(60)
#define D_TEXT \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// low_a, low_b: numbers of the operands with the low words of its descriptors.
#define WGMMA(low_a, low_b, accumulate) \
  "mov.b64 a, { %" #low_a ", %72 };\nmov.b64 b, { %" #low_b ", %72 };\n" \
  "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" D_TEXT "}, " \
  "a, b, " #accumulate ", 1, 1;\n"
// All wgmma of a promotion interval; the first overwrites, so that partial sums need no zeroing.
// NOTE: one statement, for the compiler takes its time over its registers.
DEVICE void wgmma(float (&d)[kAccumulators], uint32_t a, uint32_t b) {
  constexpr uint32_t kHigh = 1 << 30 | 1024 >> 4;  // 128-byte swizzle; from eight rows to the next
  asm volatile(
      "{\n.reg .pred first, later;\n.reg .b64 a, b;\n"
      "setp.ne.b32 first, 0, 0;\nsetp.eq.b32 later, 0, 0;\nwgmma.fence.sync.aligned;\n"
      WGMMA(64, 68, first) WGMMA(65, 69, later) WGMMA(66, 70, later) WGMMA(67, 71, later)
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

  DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
  // Not in the stages: one place for each K tile of A.
  DEVICE uint32_t a(uint32_t k_tile) const { return base + kSmemA + kBytesA * k_tile; }
  DEVICE uint32_t b() const { return base + kSmemB + kBytesB * stage; }
  DEVICE uint32_t scale_a(uint32_t k_tile) const {
    return base + kSmemScaleA + kBytesScaleA * k_tile;
  }
  DEVICE uint32_t full() const { return base + kSmemFullBarrier + kBytesFullBarrier * stage; }
  DEVICE uint32_t empty() const { return base + kSmemEmptyBarrier + kBytesEmptyBarrier * stage; }
};

DEVICE void init_barriers(Ring ring) {
  for (uint32_t i = 0; i < kStages; ++i, ring.advance()) {
    barrier_init(ring.full(), 1);
    barrier_init(ring.empty(), kConsumerWarps);
  }
  // Visible to TMA before the first use.
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// ---- Which tile next ------------------------------------------------------------------------
// Row by row: a CTA that goes on to a tile of the same row has A already.
struct TileScheduler {
  uint32_t columns;  // of tiles
  uint32_t index, step, end;  // of this CTA's tiles, numbered along the rows
  uint32_t m, n;  // first row and column of the tile

  DEVICE explicit TileScheduler(Problem problem) : columns(ceil_div(problem.n, kTileN)) {
    const uint32_t rows = ceil_div(problem.m, kTileM), ctas = gridDim.x;
    if (ctas % rows == 0) {
      // As many CTAs for every row, which take its columns in turn: CTAs that run at the same time
      // read the same columns of B.
      index = blockIdx.x % rows * columns + blockIdx.x / rows;
      step = ctas / rows;
      end = (blockIdx.x % rows + 1) * columns;
    } else {
      // As many tiles for every CTA, one after the other, also beyond the end of a row.
      const uint32_t least = rows * columns / ctas, more = rows * columns % ctas;
      index = blockIdx.x * least + min(blockIdx.x, more);
      step = 1;
      end = index + least + (blockIdx.x < more);
    }
  }

  DEVICE bool next() {
    if (index >= end) return false;
    m = index / columns * kTileM;
    n = index % columns * kTileN;
    index += step;
    return true;
  }
};

// ---- Producer: one thread keeps the ring full of B, and loads A when the row changes --------
DEVICE void load_tiles(Ring ring, TileScheduler tile, Problem problem, const TensorMap& map_a,
                       const TensorMap& map_b, const TensorMap& map_scale_a) {
  // A K tile of A may be replaced when the stage may be that the tile before read together with it.
  Ring reader = ring;
  for (uint32_t i = kTilesA; i < kStages; ++i) reader.advance();
  uint32_t row = problem.m;  // of A, the first that lies in shared memory; none yet
  while (tile.next()) {
    const bool other_row = tile.m != row;
    row = tile.m;
    for (uint32_t k_tile = 0; k_tile < kTilesA; ++k_tile, ring.advance()) {
      const uint32_t full = ring.full(), k = k_tile * kTileK;
      barrier_wait(ring.empty(), ring.phase ^ 1);
      barrier_expect(full, other_row ? kStageBytes + kTileBytesA : kStageBytes);
      tma_load(ring.b(), map_b, full, k, tile.n);
      if (other_row) {
        barrier_wait(reader.empty(), reader.phase ^ 1);
        tma_load(ring.a(k_tile), map_a, full, k, tile.m);
        tma_load(ring.scale_a(k_tile), map_scale_a, full, tile.m, k / kScaleBlockKA);
      }
      reader.advance();
    }
  }
}

// ---- Promotion: partial sums, scaled, join the FP32 totals -----------------------------------
// A thread holds two rows, 8 apart, of every 64, and four totals of every 8 columns: two rows by
// two columns, as wgmma lays them out.
using Totals = float[kWavesM][kWarpgroupN / 8][4];
using ScalesA = float[kWavesM][2];
using ScalesB = float[kScaleBlocksB];
using Scales = float[kWavesM][2][kScaleBlocksB];  // of A times of B

DEVICE void load_scales_a(ScalesA& scales, uint32_t address) {
#pragma unroll
  for (uint32_t wave = 0; wave < kWavesM; ++wave) {
    scales[wave][0] = load_shared(address + 4 * (wave * kMmaM));
    scales[wave][1] = load_shared(address + 4 * (wave * kMmaM + 8));
  }
}

using ScaleRowsB = const float*[kScaleBlocksB];  // where those of the first K block lie

DEVICE void locate_scales_b(ScaleRowsB& rows, const float* scale_b, Problem problem,
                            uint32_t column) {
#pragma unroll
  for (uint32_t i = 0; i < kScaleBlocksB; ++i) {
    // A tile that hangs over the edge of B may reach past its last block.
    const uint64_t block = min(column / kScaleBlockN + i, ceil_div(problem.n, kScaleBlockN) - 1);
    rows[i] = scale_b + block * ceil_div(problem.k, kScaleBlockKB);
    // NOTE: hidden, or the compiler computes it anew between two wgmma of every K tile.
    asm volatile("" : "+l"(rows[i]));
  }
}
// Nothing beyond the last interval.
DEVICE void load_scales_b(ScalesB& scales, const ScaleRowsB& rows, Problem problem,
                          uint32_t interval) {
  const uint32_t k_block = interval * kIntervalK / kScaleBlockKB;
  const bool exists = k_block < ceil_div(problem.k, kScaleBlockKB);
#pragma unroll
  for (uint32_t i = 0; i < kScaleBlocksB; ++i) {
    scales[i] = load_global_if(exists, rows[i] + k_block);
  }
}

DEVICE void multiply_scales(Scales& scales, const ScalesA& a, const ScalesB& b) {
#pragma unroll
  for (uint32_t wave = 0; wave < kWavesM; ++wave) {
#pragma unroll
    for (uint32_t i = 0; i < kScaleBlocksB; ++i) {
      scales[wave][0][i] = a[wave][0] * b[i];
      scales[wave][1][i] = a[wave][1] * b[i];
    }
  }
}

DEVICE void promote(Totals& totals, const float (&accumulators)[kAccumulators],
                    const Scales& scales, uint32_t wave_m, uint32_t wave_n) {
  constexpr uint32_t kFirstBlock = 128;  // columns before the next scale block of B
#pragma unroll
  for (uint32_t j = 0; j < kMmaN / 8; ++j) {
    const uint32_t column = wave_n * kMmaN + 8 * j;
    const uint32_t block = column < kFirstBlock ? 0 : 1 + (column - kFirstBlock) / kScaleBlockN;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      float& total = totals[wave_m][column / 8][i];
      total = fmaf(scales[wave_m][i / 2][block], accumulators[4 * j + i], total);
    }
  }
}

// ---- A tile on its way out: through a buffer of the warp, by TMA, beside wgmma of the next ------
using Fragment = uint32_t[2];  // pairs of elements of a thread, of 8 columns: two rows, 8 apart
using RowFragments = Fragment[kWarpgroupN / 8];

DEVICE uint32_t pack(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
DEVICE uint32_t pair(const Fragment& fragment, uint32_t row) { return fragment[row]; }
// stmatrix writes 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix
// i / 8. Matrices 0 and 1 are rows 0-7 and 8-15 of eight columns, 2 and 3 of the next eight.
DEVICE void store_matrices(uint32_t address, const Fragment& left, const Fragment& right) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], { %1, %2, %3, %4 };" ::"r"(address),
               "r"(pair(left, 0)), "r"(pair(left, 1)), "r"(pair(right, 0)), "r"(pair(right, 1))
               : "memory");
}
// 16 rows of kStoreColumns, from eight columns number `first` of the warpgroup on.
DEVICE void write_box(uint32_t buffer, const RowFragments& rows, uint32_t first, uint32_t lane) {
  constexpr uint32_t kRowBytes = 2 * kStoreColumns, kMatrices = kStoreColumns / 8;
  const uint32_t offset = lane % 16 * kRowBytes;
  const uint32_t swizzle = (offset >> 7 & kStoreSwizzleMask) << 4;
#pragma unroll
  for (uint32_t j = 0; j + 1 < kMatrices; j += 2) {
    store_matrices(buffer + offset + ((16 * j + lane / 16 * 16) ^ swizzle), rows[first + j],
                   rows[first + j + 1]);
  }
}

struct PackedTile {
  RowFragments fragments[kWavesM];
  uint32_t row, column;
};
constexpr uint32_t kNoRow = 0x7fffff00;  // of no tile: beyond D, where nothing is written
constexpr uint32_t kWaves = kWavesM * kWavesN;

// The share of the tile's boxes that goes beside one wave.
DEVICE void store_boxes(const PackedTile& tile, const TensorMap& map_d, uint32_t buffers,
                        uint32_t& turn, uint32_t wave, uint32_t lane) {
  constexpr uint32_t kAcross = kWarpgroupN / kStoreColumns, kBoxes = kWavesM * kAcross;
  constexpr uint32_t kShare = ceil_div(kBoxes, kWaves);
#pragma unroll
  for (uint32_t box = wave * kShare; box < min((wave + 1) * kShare, kBoxes); ++box) {
    const uint32_t m = box / kAcross, first = box % kAcross * (kStoreColumns / 8);
    const uint32_t buffer = buffers + turn * kBytesD;
    turn = turn + 1 == kStoreBuffers ? 0 : turn + 1;
    if (lane == 0) tma_store_wait_read<kStoreBuffers - 1>();
    __syncwarp();
    write_box(buffer, tile.fragments[m], first, lane);
    // Written by threads, read by TMA: another proxy.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
    if (lane == 0) tma_store(map_d, buffer, tile.column + 8 * first, tile.row + m * kMmaM);
  }
}

// ---- Mainloop: one warpgroup, the K tiles of one tile ---------------------------------------
DEVICE uint32_t warpgroup_row(uint32_t warp) { return warp / 4 / kConsumersN * kWarpgroupM; }
DEVICE uint32_t warpgroup_column(uint32_t warp) { return warp / 4 % kConsumersN * kWarpgroupN; }

// A stage that its wgmma have read goes back to the producer.
DEVICE void release(Ring ring, uint32_t lane) {
  __syncwarp();  // all lanes have read their scales
  if (lane == 0) barrier_arrive(ring.empty());
}

DEVICE void mainloop(Totals& totals, const PackedTile& packed, const TensorMap& map_d,
                     uint32_t buffers, uint32_t& turn, Ring& ring, const float* scale_b,
                     Problem problem, uint32_t n, uint32_t warp, uint32_t lane) {
  const uint32_t k_tiles = ceil_div(problem.k, kTileK);
  const uint32_t row = warpgroup_row(warp), column = warpgroup_column(warp);  // within the tile
  const uint32_t first_a = descriptor_low(ring.base + kSmemA + row * kRowBytes, kLeadingA);
  const uint32_t first_b = descriptor_low(ring.base + kSmemB + column * kRowBytes, kLeadingB);
  const uint32_t scale_offset_a = 4 * (row + warp % 4 * 16 + lane / 4);
  ScalesA scales_a;
  ScalesB scales_b;  // one interval ahead
  Scales scales;
  float accumulators[kAccumulators];
  ScaleRowsB rows_b;
  locate_scales_b(rows_b, scale_b, problem, n);
  load_scales_b(scales_b, rows_b, problem, 0);
  barrier_wait(ring.full(), ring.phase);
  // The first K tile apart from the others: while its wgmma are under way the tile before leaves,
  // whose elements are in registers that totals do not need yet.
#pragma unroll
  for (uint32_t first = 0; first < 2; ++first)
#pragma unroll 4
  for (uint32_t k_tile = first; k_tile < (first == 0 ? 1 : k_tiles); ++k_tile) {
    const uint32_t a = first_a + k_tile * (kBytesA / 16);
    const uint32_t b = first_b + ring.stage * (kBytesB / 16);
#pragma unroll
    for (uint32_t wave = 0; wave < kWavesM * kWavesN; ++wave) {
      const uint32_t wave_m = wave / kWavesN, wave_n = wave % kWavesN;
      wgmma(accumulators, a + (wave_m * kMmaM * kRowBytes) / 16,
            b + (wave_n * kMmaN * kRowBytes) / 16);
      if (first == 0) store_boxes(packed, map_d, buffers, turn, wave, lane);
      if (wave == 0) {  // while the tensor cores work
        load_scales_a(scales_a, ring.scale_a(k_tile) + scale_offset_a);
        multiply_scales(scales, scales_a, scales_b);
      }
      // Behind all wgmma of the K tile, which a load would hold up.
      if (wave == kWavesM * kWavesN - 1) {
        load_scales_b(scales_b, rows_b, problem, k_tile + 1);
      }
      wgmma_wait(accumulators);
      if (wave == kWavesM * kWavesN - 1) {
        release(ring, lane);
        ring.advance();
        // Before promotion, so that the wgmma of the next K tile can follow it at once.
        if (k_tile + 1 < k_tiles) {
          barrier_wait(ring.full(), ring.phase);
        }
      }
      promote(totals, accumulators, scales, wave_m, wave_n);
    }
  }
}

// ---- Epilogue: totals to bf16, which leave beside the next tile's first wgmma -------------------
DEVICE void pack_tile(PackedTile& packed, const Totals& totals, uint32_t row, uint32_t column) {
#pragma unroll
  for (uint32_t wave = 0; wave < kWavesM; ++wave) {
#pragma unroll
    for (uint32_t j = 0; j < kWarpgroupN / 8; ++j) {
      const float(&t)[4] = totals[wave][j];
      packed.fragments[wave][j][0] = pack(t[0], t[1]);
      packed.fragments[wave][j][1] = pack(t[2], t[3]);
    }
  }
  packed.row = row, packed.column = column;
}

// ---- The kernel -----------------------------------------------------------------------------
extern "C" __global__ void __launch_bounds__(kThreads, 1)
gemm_e4m3_1x128_e4m3_128x128_bf16_n32768_k512_t192x128x128_w3x1_c1x1_s6_u4_ew_late_astat(
    const __grid_constant__ TensorMap tensor_map_a,
    const __grid_constant__ TensorMap tensor_map_b,
    const __grid_constant__ TensorMap tensor_map_scale_a,
    const __grid_constant__ TensorMap tensor_map_d,
    const float* __restrict__ scale_b,
    uint32_t m) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Ring ring{uint32_t(__cvta_generic_to_shared(shared))};
  // NOTE: through a shuffle, so that the compiler knows it to be uniform in the warp.
  const uint32_t warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
  const uint32_t lane = threadIdx.x % 32;
  const Problem problem{m};
  TileScheduler tile(problem);

  if (warp == kConsumerWarps && elect_one()) {
    prefetch(tensor_map_a);
    prefetch(tensor_map_b);
    prefetch(tensor_map_scale_a);
    prefetch(tensor_map_d);
    init_barriers(ring);
  }
  __syncthreads();

  if (warp >= kConsumerWarps) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (warp == kConsumerWarps && elect_one()) {
      load_tiles(ring, tile, problem, tensor_map_a, tensor_map_b, tensor_map_scale_a);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    const uint32_t buffers = ring.base + kSmemD + warp * kStoreBuffers * kBytesD;
    uint32_t turn = 0;  // of the store buffers
    PackedTile packed = {};  // the tile before, not stored yet
    packed.row = kNoRow;
    while (tile.next()) {
      const uint32_t row = tile.m + warpgroup_row(warp) + warp % 4 * 16;
      const uint32_t column = tile.n + warpgroup_column(warp);
      Totals totals = {};
      mainloop(totals, packed, tensor_map_d, buffers, turn, ring, scale_b, problem, column, warp,
               lane);
      pack_tile(packed, totals, row, column);
    }
#pragma unroll
    for (uint32_t wave = 0; wave < kWaves; ++wave) {
      store_boxes(packed, tensor_map_d, buffers, turn, wave, lane);
    }
    if (lane == 0) tma_store_wait_read<0>();  // shared memory must stay until it is read
  }
}
