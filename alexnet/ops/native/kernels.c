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
    const float *mean;    /* (mean_height, mean_width, 3) */
    const int64_t *offsets; /* (n, 2): row and column of the mean that belongs to each crop's corner */
    const uint8_t *flips;   /* (n): the mean is reflected with its crop; or NULL */
    int64_t height, width, mean_height, mean_width;
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

/* What a function returns. IMPOSSIBLE: nothing was read or written beyond the arguments. */
enum { DONE, NO_MEMORY, IMPOSSIBLE };

/* To be raised, here and in __init__.py, with every change of a function or its arguments. */
int alexnet_abi(void) { return 2; }

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

static int run(Job *job, int64_t numbers, Parallel parallel, int64_t threads) { /* DONE or NO_MEMORY */
    if (threads > job->num_units) threads = job->num_units;
    if (threads > numbers / NUMBERS_A_THREAD) threads = numbers / NUMBERS_A_THREAD;
    if (parallel && threads > 1)
        parallel(run_units, job, (unsigned)threads, 0);
    else
        run_units(job);
    /* Units that no thread could take: some threads may have had memory, then they did all of them. */
    return atomic_load(&job->failed) && atomic_load(&job->next) < job->num_units ? NO_MEMORY : DONE;
}

/* ---- What a caller may ask for: records can come from a file, and the kernels believe what they are told ---- */

/* The products of the sizes below stay under 2**59, far from the end of 64 bits. */
enum { MOST_SIDE = 1 << 20, MOST_WINDOW = 1 << 12 };
static const int64_t MOST_NUMBERS = INT64_C(1) << 40;

static int is_between(int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; }

static int fits(int isa) { return is_between(isa, BASELINE, alexnet_instruction_set()); }

static int is_aligned(const void *pointer, size_t size) { return (uintptr_t)pointer % size == 0; }

static int is_norm(const Norm *norm, int64_t size_limit) {
    return is_between(norm->size, 0, size_limit) && isfinite(norm->scale) && isfinite(norm->beta) && isfinite(norm->k);
}

/* Every pooled window begins inside the maps, and the byte that names a position in it is not NO_GRADIENT. */
static int is_pool(const Block *b) {
    if (b->pool_size == 0)
        return b->pooled_height == b->height && b->pooled_width == b->width && !b->relu_last;
    return b->pool_size > 0 && b->pool_size * b->pool_size < NO_GRADIENT && is_between(b->pool_stride, 1, MOST_SIDE) &&
           is_between(b->pooled_height, 1, (b->height - 1) / b->pool_stride + 1) &&
           is_between(b->pooled_width, 1, (b->width - 1) / b->pool_stride + 1);
}

static int is_block(const Block *b, int64_t n) {
    return is_between(b->height, 1, MOST_SIDE) && is_between(b->width, 1, MOST_SIDE) &&
           is_between(b->channels, 1, MOST_SIDE) && is_between(n, 0, MOST_NUMBERS) &&
           b->width * b->channels <= MOST_NUMBERS / b->height &&
           n <= MOST_NUMBERS / (b->height * b->width * b->channels) && is_norm(&b->norm, MOST_WINDOW) &&
           is_norm(&b->spatial, MOST_WINDOW) && is_between(b->norm.towers, 1, b->channels) &&
           b->channels % b->norm.towers == 0 && (b->spatial.size == 0 || b->spatial.size % 2 == 1) &&
           is_between(b->relu_first, 0, 1) && is_between(b->relu_last, 0, 1) && is_pool(b);
}

/* Maps of float32 or bfloat16, which a unit of work reads or writes from `maps` on. */
static int are_maps(const void *maps, int bfloat16, int64_t n) {
    return !n || (maps && is_aligned(maps, bfloat16 ? sizeof(uint16_t) : sizeof(float)));
}

static int are_images(const Images *m, int64_t n) {
    if (!is_between(m->height, 1, MOST_SIDE) || !is_between(m->width, 1, MOST_SIDE) ||
        !is_between(m->mean_height, m->height, MOST_SIDE) || !is_between(m->mean_width, m->width, MOST_SIDE) ||
        !is_between(n, 0, MOST_NUMBERS / (m->height * m->width)))
        return 0;
    if (n && (!m->crops || !m->mean || !m->offsets || !m->images)) return 0;
    for (int64_t i = 0; i < n; i++)
        if (!is_between(m->offsets[2 * i], 0, m->mean_height - m->height) ||
            !is_between(m->offsets[2 * i + 1], 0, m->mean_width - m->width))
            return 0;
    return 1;
}

/* `first` does not fall along rows, whose ring would be read before it is filled. */
static int is_axis(const Axis *axis, int rising) {
    if (!is_between(axis->size, 1, MOST_SIDE) || !is_between(axis->length, 1, MOST_SIDE) ||
        !is_between(axis->taps, 1, axis->length) || !axis->first || !axis->weights)
        return 0;
    for (int64_t i = 0; i < axis->size; i++) {
        int64_t sum = 0;
        for (int64_t tap = 0; tap < axis->taps; tap++) sum += llabs((long long)axis->weights[i * axis->taps + tap]);
        if (!is_between(axis->first[i], 0, axis->length - axis->taps) || sum > (INT32_MAX - ROUND) / 255) return 0;
        if (rising && i && axis->first[i] < axis->first[i - 1]) return 0;
    }
    return 1;
}

/* x: (n, height, width, channels), y: (n, pooled_height, pooled_width, channels), float32 or bfloat16; winners: bytes of
   y's shape, or NULL where no gradient is wanted or there is no pool. */
int alexnet_block_forward(const Block *block, int64_t n, int bfloat16, const void *x, void *y, uint8_t *winners, int isa,
                          Parallel parallel, int threads) {
    if (!fits(isa) || !is_block(block, n) || !are_maps(x, bfloat16, n) || !are_maps(y, bfloat16, n)) return IMPOSSIBLE;
    int64_t strips = 1; /* few images: cut them, so that every thread has work */
    if (threads > 1 && n < 4 * (int64_t)threads) strips = (4 * (int64_t)threads + n - 1) / (n ? n : 1);
    if (strips > block->pooled_height) strips = block->pooled_height;
    Job job = {.num_units = n * strips, .isa = isa, .block = block, .bfloat16 = bfloat16, .num_strips = strips,
               .x = x, .y = y, .winners = winners};
    return run(&job, n * block->height * block->width * block->channels, parallel, threads);
}

/* grad_x from x, the gradient of y and what the forward pass left in winners. */
int alexnet_block_backward(const Block *block, int64_t n, int bfloat16, const void *x, const void *grad_y,
                           const uint8_t *winners, void *grad_x, int isa, Parallel parallel, int threads) {
    if (!fits(isa) || !is_block(block, n) || !are_maps(x, bfloat16, n) || !are_maps(grad_y, bfloat16, n) ||
        !are_maps(grad_x, bfloat16, n) || (n && block->pool_size && !winners))
        return IMPOSSIBLE;
    Job job = {.num_units = n, .isa = isa, .block = block, .bfloat16 = bfloat16, .num_strips = 1, .x = x,
               .grad_y = grad_y, .y = grad_x, .winners = (uint8_t *)winners};
    return run(&job, n * block->height * block->width * block->channels, parallel, threads);
}

int alexnet_update(const Update *update, int isa, Parallel parallel, int threads) {
    size_t gradient = update->bfloat16_gradient ? sizeof(uint16_t) : sizeof(float);
    if (!fits(isa) || !is_between(update->length, 0, MOST_NUMBERS)) return IMPOSSIBLE;
    if (update->length && (!update->weight || !update->velocity || !update->gradient ||
                           !is_aligned(update->weight, sizeof(float)) || !is_aligned(update->velocity, sizeof(float)) ||
                           !is_aligned(update->gradient, gradient) || !is_aligned(update->copy, sizeof(uint16_t))))
        return IMPOSSIBLE;
    Job job = {.num_units = (update->length + UPDATE_CHUNK - 1) / UPDATE_CHUNK, .isa = isa, .update = update};
    return run(&job, update->length, parallel, threads);
}

/* Network inputs from n crops: (pixel + shift - mean) * scale. */
int alexnet_images(const Images *images, int64_t n, int isa, Parallel parallel, int threads) {
    if (!fits(isa) || !are_images(images, n)) return IMPOSSIBLE;
    Job job = {.num_units = n, .isa = isa, .images = images};
    return run(&job, 3 * n * images->height * images->width, parallel, threads);
}

/* The part of an image at (top, left), (height, width, 3) bytes, reflected or not. The image has `rows` rows of `columns`
   pixels, which are `stride` bytes apart. */
int alexnet_crop(const uint8_t *image, int64_t rows, int64_t columns, int64_t stride, int64_t top, int64_t left,
                 int64_t height, int64_t width, int reflect, uint8_t *to, int isa) {
    if (!fits(isa) || !is_between(rows, 1, MOST_SIDE) || !is_between(columns, 1, MOST_SIDE) ||
        !is_between(height, 1, rows) || !is_between(width, 1, columns) || !is_between(top, 0, rows - height) ||
        !is_between(left, 0, columns - width) || !image || !to)
        return IMPOSSIBLE;
    DISPATCH(isa, crop, image + top * stride + 3 * left, stride, height, width, reflect, to);
    return DONE;
}

/* Resamples along x, rounds to bytes, then along y: (rows->size, columns->size, 3). */
int alexnet_resample(const uint8_t *from, int64_t stride, const Axis *columns, const Axis *rows, uint8_t *to, int isa) {
    if (!fits(isa) || !is_axis(columns, 0) || !is_axis(rows, 1) || !from || !to) return IMPOSSIBLE;
    int64_t ring_stride = (3 * columns->size + 1 + 63) / 64 * 64; /* a byte more than the pixels, see pixels.inc */
    int64_t pointers = (rows->taps * (int64_t)sizeof(uint8_t *) + 63) / 64 * 64;
    uint8_t *memory = aligned_alloc(64, pointers + rows->taps * ring_stride);
    if (!memory) return NO_MEMORY;
    DISPATCH(isa, resample, from, stride, columns, rows, memory + pointers, ring_stride, (const uint8_t **)memory, to);
    free(memory);
    return DONE;
}
