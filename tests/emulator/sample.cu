// A small GEMM with everything that the emulator must get right: D[m, n] = sum over K tiles of
// scale_a[k, m] * scale_b[k] * (A[m, k] . B[n, k]), FP8 in, BF16 out.
// One cluster of 2 CTAs computes 256 x 64 of D; each CTA loads half of the B tile for both.
// Warpgroups 0 and 1 multiply, warpgroup 2 loads. One stage holds a K tile of A and of B.
typedef unsigned u32;
typedef unsigned long long u64;
struct alignas(64) TensorMap { u64 opaque[16]; };

constexpr u32 kStages = 3, kTileM = 128, kTileN = 64, kTileK = 128;
constexpr u32 kBytesA = kTileM * kTileK, kBytesB = kTileN * kTileK, kBytesD = 16 * kTileN * 2;
constexpr u32 kOffsetB = kStages * kBytesA, kOffsetD = kOffsetB + kStages * kBytesB;
constexpr u32 kOffsetFull = kOffsetD + 8 * kBytesD, kOffsetEmpty = kOffsetFull + 8 * kStages;

__device__ void mbarrier_init(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ void mbarrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ void mbarrier_arrive(u32 barrier, u32 cta) {
  u32 remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(barrier), "r"(cta));
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(remote) : "memory");
}
__device__ void mbarrier_wait(u32 barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier), "r"(parity)
      : "memory");
}
__device__ void load(u32 to, const TensorMap& map, u32 barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4}], [%2];" ::"r"(to), "l"(&map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
__device__ void load_for_both(u32 to, const TensorMap& map, u32 barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to), "l"(&map), "r"(barrier),
      "r"(x), "r"(y), "h"((unsigned short)3)
      : "memory");
}
__device__ u64 descriptor(u32 address) {  // K-major, 128B swizzle: 8 rows every 1024 bytes
  return address >> 4 | 1u << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}
__device__ void wgmma(float (&d)[32], u64 a, u64 b, u32 accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
      , "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
      , "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
      , "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(accumulate));
}
__device__ u32 bf16x2(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
__device__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

extern "C" __global__ void __launch_bounds__(384, 1) __cluster_dims__(2, 1, 1)
    gemm(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
         const __grid_constant__ TensorMap map_d, const float* scale_a, const float* scale_b, int m,
         int n, int k) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const u32 base = (u32)__cvta_generic_to_shared(shared);
  const u32 full = base + kOffsetFull, empty = base + kOffsetEmpty;
  const u32 warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const u32 rank = blockIdx.x % 2;
  const int tiles_n = (n + kTileN - 1) / kTileN;
  const int tiles = (m + 2 * kTileM - 1) / (2 * kTileM) * tiles_n, k_tiles = k / kTileK;
  if (threadIdx.x == 256) {
    for (u32 stage = 0; stage < kStages; ++stage) {
      mbarrier_init(full + 8 * stage, 1);
      mbarrier_init(empty + 8 * stage, 16);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_barrier();
  u32 stage = 0, phase = 0;
  if (warp >= 8) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 256) {
      for (int tile = blockIdx.x / 2; tile < tiles; tile += gridDim.x / 2) {
        const int row = (tile / tiles_n * 2 + rank) * kTileM, column = tile % tiles_n * kTileN;
        for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
          mbarrier_wait(empty + 8 * stage, phase ^ 1);
          mbarrier_expect(full + 8 * stage, kBytesA + kBytesB);
          load(base + stage * kBytesA, map_a, full + 8 * stage, k_tile * kTileK, row);
          load_for_both(base + kOffsetB + stage * kBytesB + rank * kBytesB / 2, map_b,
                        full + 8 * stage, k_tile * kTileK, column + rank * kTileN / 2);
          if (++stage == kStages) stage = 0, phase ^= 1;
        }
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const u32 group = warp / 4, buffer = base + kOffsetD + warp * kBytesD;
    for (int tile = blockIdx.x / 2; tile < tiles; tile += gridDim.x / 2) {
      const int row = (tile / tiles_n * 2 + rank) * kTileM + warp * 16;
      const int column = tile % tiles_n * kTileN;
      const int row0 = min(row + lane / 4, m - 1), row1 = min(row + lane / 4 + 8, m - 1);
      float total[32] = {}, d[32];
      for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        const float b = scale_b[k_tile];
        const float scale0 = scale_a[k_tile * m + row0] * b, scale1 = scale_a[k_tile * m + row1] * b;
        mbarrier_wait(full + 8 * stage, phase);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (u32 step = 0; step < kTileK / 32; ++step)
          wgmma(d, descriptor(base + stage * kBytesA + group * 64 * kTileK + step * 32),
                descriptor(base + kOffsetB + stage * kBytesB + step * 32), step);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        for (int i = 0; i < 32; ++i) asm volatile("" : "+f"(d[i])::"memory");
        if (lane < 2) mbarrier_arrive(empty + 8 * stage, lane);
        for (int i = 0; i < 32; ++i) total[i] += (i / 2 % 2 ? scale1 : scale0) * d[i];
        if (++stage == kStages) stage = 0, phase ^= 1;
      }
      if (lane == 0) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
      __syncwarp();
      for (u32 i = 0; i < 4; ++i) {  // 16 columns each; the swizzle of map_d
        const u32 to = buffer + lane % 16 * 128 + ((2 * i + lane / 16) ^ lane % 8) * 16;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(bf16x2(total[8 * i], total[8 * i + 1])),
                     "r"(bf16x2(total[8 * i + 2], total[8 * i + 3])),
                     "r"(bf16x2(total[8 * i + 4], total[8 * i + 5])),
                     "r"(bf16x2(total[8 * i + 6], total[8 * i + 7]))
                     : "memory");
      }
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      __syncwarp();
      if (lane == 0) {
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::
                     "l"(&map_d), "r"(buffer), "r"(column), "r"(row) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
      }
    }
    if (lane == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
  }
  __syncwarp();
  cluster_barrier();
}
