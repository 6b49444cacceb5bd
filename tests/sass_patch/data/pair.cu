// Two kernels in one cubin: promotion with a scale (FFMA) and without one (FADD).
typedef unsigned long long u64;

__device__ __forceinline__ void wgmma_m64n32k32(float (&d)[16], u64 desc_a, u64 desc_b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, %16, %17, 0, 1, 1;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15])
        : "l"(desc_a), "l"(desc_b));
}

template <bool kScaled>
__device__ __forceinline__ void run(float* out, const float* scales, u64 desc_a, u64 desc_b, int k_tiles) {
    float total[16] = {}, partial[16] = {};
    for (int k = 0; k < k_tiles; ++k) {
        const float scale = kScaled ? scales[k] : 1.0f;
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        wgmma_m64n32k32(partial, desc_a + 8 * k, desc_b + 8 * k);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        for (int i = 0; i < 16; ++i) total[i] = kScaled ? total[i] + scale * partial[i] : total[i] + partial[i];
    }
    for (int i = 0; i < 16; ++i) out[16 * threadIdx.x + i] = total[i];
}

extern "C" __global__ void __launch_bounds__(384, 1)
scaled(float* out, const float* scales, u64 desc_a, u64 desc_b, int k_tiles) {
    run<true>(out, scales, desc_a, desc_b, k_tiles);
}

extern "C" __global__ void __launch_bounds__(384, 1)
plain(float* out, const float* scales, u64 desc_a, u64 desc_b, int k_tiles) {
    run<false>(out, scales, desc_a, desc_b, k_tiles);
}
