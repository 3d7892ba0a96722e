/* The CPU kernels of alexnet/ops/native.py: plain C, called with pointers; no headers of Python or torch.

   block.inc is compiled for several instruction sets, and the best that the processor has is used. Threads are those
   that torch has already: the caller passes libgomp's GOMP_parallel. */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NO_GRADIENT 255

typedef struct {
    int32_t size; /* 0: no such normalisation */
    int32_t towers;
    float scale; /* multiplies the sum of squares */
    float beta, k;
} Norm;

typedef struct {
    int64_t height, width, channels;
    int64_t pool_size, pool_stride; /* size 0: no pool */
    int64_t pooled_height, pooled_width; /* height and width without a pool */
    Norm norm, spatial;
    int32_t relu_first, relu_last;
} Block;

typedef struct {
    float *weight, *velocity;
    const void *gradient;
    uint16_t *copy; /* bfloat16 copy of the updated weights, or NULL */
    int64_t length;
    float momentum, decay, rate, step;
    int32_t bfloat16_gradient;
} Update;

typedef struct {
    const uint8_t *crops; /* (n, height, width, 3) */
    const float *shift;   /* (n, 3), or NULL */
    const float *mean;    /* (mean_side, mean_side, 3) */
    const int64_t *offsets; /* (n, 2): row and column of the mean that belongs to each crop's corner */
    const uint8_t *flips;   /* (n): the mean is reflected with its crop; or NULL */
    int64_t height, width, mean_side;
    float scale[3];
    int32_t bgr, bfloat16;
    void *images; /* (n, height, width, 3) */
} Images;

typedef struct { /* resampling along one axis: output i is the sum of weights[i, t] * input[first[i] + t] */
    const int32_t *first;   /* (size), within 0 .. length - taps; it does not fall along rows */
    const int32_t *weights; /* (size, taps), in units of 2^-PRECISION */
    int64_t size, taps, length;
} Axis;

enum { PRECISION = 22, ROUND = 1 << (PRECISION - 1) };

#ifdef __GNUC__
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
#endif

#define JOIN_(name, isa) name##_##isa
#define JOIN(name, isa) JOIN_(name, isa)
#define NAME(name) JOIN(name, ISA)

#define ISA baseline
#include "block.inc"
#include "pixels.inc"
#undef ISA

#if defined(__x86_64__) && defined(__GNUC__)
#define SEVERAL_ISAS
#define WIDE
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#include "block.inc"
#include "pixels.inc"
#undef ISA
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define ISA avx512
#include "block.inc"
#include "pixels.inc"
#undef ISA
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef WIDE
#endif

enum { BASELINE, AVX2, AVX512 };

/* To be raised, here and in __init__.py, with every change of a function or its arguments. */
int alexnet_abi(void) { return 1; }

/* The instruction set in use: 0 what the compiler takes for granted, 1 AVX2, 2 AVX-512. */
int alexnet_instruction_set(void) {
#ifdef SEVERAL_ISAS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return BASELINE;
}

#ifdef SEVERAL_ISAS
#define DISPATCH(isa, name, ...) \
    ((isa) == AVX512 ? name##_avx512(__VA_ARGS__) : (isa) == AVX2 ? name##_avx2(__VA_ARGS__) : name##_baseline(__VA_ARGS__))
#else
#define DISPATCH(isa, name, ...) name##_baseline(__VA_ARGS__)
#endif

/* ---- Jobs: independent units that threads take in turn ---- */

typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned); /* GOMP_parallel */

typedef struct {
    atomic_llong next;
    atomic_int failed;
    int64_t num_units;
    int isa;
    const Block *block;
    int bfloat16;
    int64_t num_strips; /* of an image, forward */
    const void *x, *grad_y;
    void *y; /* the output: grad_x, backward */
    uint8_t *winners;
    const Update *update;
    const Images *images;
} Job;

static void block_unit(const Job *job, float *arena, int64_t unit) {
    const Block *b = job->block;
    int64_t row = b->width * b->channels;
    int64_t image = unit / job->num_strips, strip = unit % job->num_strips;
    int64_t first = strip * b->pooled_height / job->num_strips, last = (strip + 1) * b->pooled_height / job->num_strips;
#define UNIT(isa)                                                                              \
    {                                                                                          \
        Work_##isa work = {b, job->bfloat16, row, arena, 0};                                   \
        if (job->grad_y)                                                                       \
            backward_image_##isa(&work, image, job->x, job->grad_y, job->winners, job->y);     \
        else                                                                                   \
            forward_strip_##isa(&work, image, first, last, job->x, job->y, job->winners);      \
        return;                                                                                \
    }
#ifdef SEVERAL_ISAS
    if (job->isa == AVX512) UNIT(avx512)
    if (job->isa == AVX2) UNIT(avx2)
#endif
    UNIT(baseline)
}

enum { UPDATE_CHUNK = 1 << 15 };

static void run_units(void *argument) {
    Job *job = argument;
    float *arena = 0;
    if (job->block || job->images) {
        int64_t floats = job->block ? DISPATCH(job->isa, scratch_floats, job->block) : 4 * (3 * job->images->width + 16);
        int64_t bytes = floats * (int64_t)sizeof(float);
        arena = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!arena) {
            atomic_store(&job->failed, 1);
            return;
        }
    }
    for (int64_t unit; (unit = atomic_fetch_add(&job->next, 1)) < job->num_units;) {
        if (job->block) {
            block_unit(job, arena, unit);
        } else if (job->images) {
            DISPATCH(job->isa, image, job->images, unit, arena);
        } else {
            int64_t first = unit * UPDATE_CHUNK, last = first + UPDATE_CHUNK;
            if (last > job->update->length) last = job->update->length;
            DISPATCH(job->isa, update, job->update, first, last);
        }
    }
    free(arena);
}

/* Below this many numbers a thread, waking it and waiting for it costs more than it saves. */
enum { NUMBERS_A_THREAD = 1 << 15 };

static int run(Job *job, int64_t numbers, Parallel parallel, int64_t threads) { /* 0, or 1 when there was no memory */
    if (threads > job->num_units) threads = job->num_units;
    if (threads > numbers / NUMBERS_A_THREAD) threads = numbers / NUMBERS_A_THREAD;
    if (parallel && threads > 1)
        parallel(run_units, job, (unsigned)threads, 0);
    else
        run_units(job);
    /* Units that no thread could take: some threads may have had memory, then they did all of them. */
    return atomic_load(&job->failed) && atomic_load(&job->next) < job->num_units;
}

/* x: (n, height, width, channels), y: (n, pooled_height, pooled_width, channels), float32 or bfloat16; winners: bytes of
   y's shape, or NULL where no gradient is wanted or there is no pool. */
int alexnet_block_forward(const Block *block, int64_t n, int bfloat16, const void *x, void *y, uint8_t *winners, int isa,
                          Parallel parallel, int threads) {
    int64_t strips = 1; /* few images: cut them, so that every thread has work */
    if (n < 4 * threads && threads > 1) strips = (4 * threads + n - 1) / (n ? n : 1);
    if (strips > block->pooled_height) strips = block->pooled_height;
    Job job = {.num_units = n * strips, .isa = isa, .block = block, .bfloat16 = bfloat16, .num_strips = strips,
               .x = x, .y = y, .winners = winners};
    return run(&job, n * block->height * block->width * block->channels, parallel, threads);
}

/* grad_x from x, the gradient of y and what the forward pass left in winners. */
int alexnet_block_backward(const Block *block, int64_t n, int bfloat16, const void *x, const void *grad_y,
                           const uint8_t *winners, void *grad_x, int isa, Parallel parallel, int threads) {
    Job job = {.num_units = n, .isa = isa, .block = block, .bfloat16 = bfloat16, .num_strips = 1, .x = x,
               .grad_y = grad_y, .y = grad_x, .winners = (uint8_t *)winners};
    return run(&job, n * block->height * block->width * block->channels, parallel, threads);
}

int alexnet_update(const Update *update, int isa, Parallel parallel, int threads) {
    Job job = {.num_units = (update->length + UPDATE_CHUNK - 1) / UPDATE_CHUNK, .isa = isa, .update = update};
    return run(&job, update->length, parallel, threads);
}

/* Network inputs from n crops: (pixel + shift - mean) * scale. */
int alexnet_images(const Images *images, int64_t n, int isa, Parallel parallel, int threads) {
    Job job = {.num_units = n, .isa = isa, .images = images};
    return run(&job, 3 * n * images->height * images->width, parallel, threads);
}

/* A part of an image, (height, width, 3) bytes from rows that are `stride` bytes apart, reflected or not. */
void alexnet_crop(const uint8_t *from, int64_t stride, int64_t height, int64_t width, int reflect, uint8_t *to, int isa) {
    DISPATCH(isa, crop, from, stride, height, width, reflect, to);
}

/* Resamples along x, rounds to bytes, then along y: (rows->size, columns->size, 3). Returns 1 when there is no memory. */
int alexnet_resample(const uint8_t *from, int64_t stride, const Axis *columns, const Axis *rows, uint8_t *to, int isa) {
    int64_t ring_stride = (3 * columns->size + 1 + 63) / 64 * 64; /* a byte more than the pixels, see pixels.inc */
    int64_t pointers = (rows->taps * (int64_t)sizeof(uint8_t *) + 63) / 64 * 64;
    uint8_t *memory = aligned_alloc(64, pointers + rows->taps * ring_stride);
    if (!memory) return 1;
    DISPATCH(isa, resample, from, stride, columns, rows, memory + pointers, ring_stride, (const uint8_t **)memory, to);
    free(memory);
    return 0;
}
