/* A pass of an int8 Cirilla over a few tokens, all layers in one go: lm/native.py compiles, loads and calls it.
 *
 * The same arithmetic as lm/quantize.py: a token's vector is quantised by its own largest magnitude, integers are summed
 * exactly, and RMSNorm's factor waits until the product is there.  No token's numbers depend on the tokens beside it, and
 * attention adds up the same pieces of the text however many tokens ask.  Plain C: the compiler makes vectors of it.
 *
 * Threads share a token by rows of the matrices and by pieces of the text; what is small each of them computes for
 * itself, which is cheaper than waiting.  Shapes as in lm/model.py: D width, H query heads, G key-value heads, hd head
 * width, F feed-forward width, N rows and K columns of any matrix.
 */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

typedef struct {
    const int8_t *rows;  /* (N, K) */
    const float *scale;  /* (N) */
    const int32_t *sums; /* (N), of each row */
    int32_t n, k;
} Matrix;

typedef struct {
    const float *before, *between; /* (D), norms before attention and before the feed-forward network */
    const float *heads;            /* (H + G, hd), QK-norm, or NULL */
    Matrix qkv, o, gate_up, down;
} Layer;

typedef struct {
    int32_t layers, width, heads, groups, head, inner; /* D, H, G, hd, F */
    float eps;
    const float *cos, *sin; /* (positions, hd) */
    const float *norm;      /* (D) */
    const Layer *layer;
} Model;

enum { PIECE = 256, ZERO = 128, LEVELS = 127 }; /* tokens of the text that are attended to at a time; quantised 0 */

/* Large pages make reading tens of megabytes for every token a third faster; a wish that the system may ignore. */
void wish_large_pages(void *start, size_t bytes) {
#ifdef MADV_HUGEPAGE
    madvise(start, bytes, MADV_HUGEPAGE);
#endif
}

/* e^x, to about 1e-7 of its value: Cephes' polynomial, written out so that it becomes vectors too. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = floorf(x * 1.44269504f + 0.5f), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
               1.6666665459e-1f) * r + 5.0000001201e-1f;
    union { int32_t i; float f; } power = {.i = ((int32_t)n + 127) << 23};
    return (p * r * r + r + 1.0f) * power.f;
}

/* x (K), times norm if there is one, as bytes around ZERO; what a product with them must be multiplied with. */
static float quantise(const float *x, const float *norm, float eps, int k, uint8_t *q) {
    float top = 1e-30f, squares = 0.0f;
    for (int i = 0; i < k; i++) {
        float u = fabsf(norm ? x[i] * norm[i] : x[i]);
        top = u > top ? u : top;
        squares += x[i] * x[i];
    }
    float steps = LEVELS / top;
    for (int i = 0; i < k; i++) q[i] = (uint8_t)(int32_t)((norm ? x[i] * norm[i] : x[i]) * steps + (ZERO + 0.5f));
    return top / LEVELS * (norm ? 1.0f / sqrtf(squares / k + eps) : 1.0f);
}

/* Rows from..to of the product with each of the tokens q (T, K): y (T, stride), or added to it. */
static void multiply(const Matrix *m, const uint8_t *q, const float *factor, int tokens, int from, int to, float *y,
                     int stride, int add) {
    for (int n = from; n < to; n++) {
        const int8_t *row = m->rows + (size_t)n * m->k;
        for (int t = 0; t < tokens; t++) {
            const uint8_t *x = q + (size_t)t * m->k;
            int32_t sum = 0;
            for (int i = 0; i < m->k; i++) sum += (int32_t)x[i] * (int32_t)row[i];
            float value = (float)(sum - ZERO * m->sums[n]) * m->scale[n] * factor[t];
            y[(size_t)t * stride + n] = add ? y[(size_t)t * stride + n] + value : value;
        }
    }
}

/* One head's QK-norm and rotation by its position, in place. */
static void turn(float *x, const float *norm, const float *cos, const float *sin, float eps, int hd) {
    float squares = 0.0f, turned[hd];
    for (int i = 0; i < hd; i++) squares += x[i] * x[i];
    float factor = norm ? 1.0f / sqrtf(squares / hd + eps) : 1.0f;
    for (int i = 0; i < hd; i++) x[i] *= norm ? factor * norm[i] : 1.0f;
    for (int i = 0; i < hd; i++) turned[i] = x[i] * cos[i] + x[(i + hd / 2) % hd] * sin[i];
    memcpy(x, turned, hd * sizeof(float));
}

/* Softmax attention of one query over `count` keys: out (hd) not yet divided, out[hd] the divisor, out[hd + 1] the
 * largest score, so that pieces of a text can be put together. */
static void attend(const float *query, const float *keys, const float *values, int count, int hd, float *out) {
    float score[PIECE], top = -1e30f, total = 0.0f, scale = 1.0f / sqrtf((float)hd);
    for (int s = 0; s < count; s++) {
        float dot = 0.0f;
        for (int i = 0; i < hd; i++) dot += query[i] * keys[(size_t)s * hd + i];
        score[s] = dot * scale;
        top = score[s] > top ? score[s] : top;
    }
    for (int s = 0; s < count; s++) score[s] = exponential(score[s] - top);
    memset(out, 0, hd * sizeof(float));
    for (int s = 0; s < count; s++) {
        total += score[s];
        for (int i = 0; i < hd; i++) out[i] += score[s] * values[(size_t)s * hd + i];
    }
    out[hd] = total;
    out[hd + 1] = top;
}

/* Product of x (T, K) with a matrix: y (T, N). */
void linear(const Matrix *m, const float *x, float *y, int tokens, int threads) {
    uint8_t q[tokens * m->k];
    float factor[tokens];
    for (int t = 0; t < tokens; t++) factor[t] = quantise(x + (size_t)t * m->k, NULL, 0, m->k, q + (size_t)t * m->k);
#pragma omp parallel num_threads(threads)
    {
        int all = omp_get_num_threads(), me = omp_get_thread_num();
        multiply(m, q, factor, tokens, m->n * me / all, m->n * (me + 1) / all, y, m->n, 0);
    }
}

/* Tokens x (T, D), embedded, become their final vectors, in place; their keys and values join the cache.
 *
 * keys, values: a buffer (G, slots, hd) for each layer.  start: tokens that are already in it.
 * room: floats, T · ((H + 2G)·hd + 2F + H · pieces · (hd + 2)) of them, pieces = ceil((start + T) / PIECE). */
void decode(const Model *m, float *x, int tokens, int start, float *const *keys, float *const *values, int slots,
            float *room, int threads) {
    const int D = m->width, H = m->heads, G = m->groups, hd = m->head, F = m->inner, all_heads = H + 2 * G;
    const int pieces = (start + tokens + PIECE - 1) / PIECE, part = hd + 2, widest = F > H * hd ? F : H * hd;
    float *qkv = room, *inner = qkv + (size_t)tokens * all_heads * hd, *parts = inner + (size_t)tokens * 2 * F;
#pragma omp parallel num_threads(threads)
    {
        const int all = omp_get_num_threads(), me = omp_get_thread_num();
        uint8_t q[tokens * (widest > D ? widest : D)];
        float factor[tokens], mixed[H * hd];
#define MINE(n) (n) * me / all, (n) * (me + 1) / all
        for (int l = 0; l < m->layers; l++) {
            const Layer *layer = m->layer + l;
            for (int t = 0; t < tokens; t++) factor[t] = quantise(x + t * D, layer->before, m->eps, D, q + t * D);
            const int head_from = all_heads * me / all, head_to = all_heads * (me + 1) / all;
            multiply(&layer->qkv, q, factor, tokens, head_from * hd, head_to * hd, qkv, all_heads * hd, 0);
            for (int t = 0; t < tokens; t++)
                for (int h = head_from; h < head_to; h++) {
                    float *one = qkv + ((size_t)t * all_heads + h) * hd;
                    size_t place = (size_t)(start + t) * hd;
                    if (h < H + G) turn(one, layer->heads ? layer->heads + h * hd : NULL, m->cos + place, m->sin + place, m->eps, hd);
                    if (h >= H) {
                        float *kept = h < H + G ? keys[l] + (size_t)(h - H) * slots * hd : values[l] + (size_t)(h - H - G) * slots * hd;
                        memcpy(kept + place, one, hd * sizeof(float));
                    }
                }
#pragma omp barrier
            for (int task = G * pieces * me / all; task < G * pieces * (me + 1) / all; task++) {
                const int g = task / pieces, piece = task % pieces, from = piece * PIECE;
                const size_t first = ((size_t)g * slots + from) * hd;
                for (int t = 0; t < tokens; t++) {
                    int count = start + t + 1 - from;
                    for (int h = g * (H / G); h < (g + 1) * (H / G); h++) {
                        float *out = parts + (((size_t)t * H + h) * pieces + piece) * part;
                        attend(qkv + ((size_t)t * all_heads + h) * hd, keys[l] + first, values[l] + first,
                               count > PIECE ? PIECE : count, hd, out);
                    }
                }
            }
#pragma omp barrier
            for (int t = 0; t < tokens; t++) {
                const int seen = (start + t) / PIECE + 1; /* pieces in which this token sees anything */
                for (int h = 0; h < H; h++) {
                    const float *piece = parts + ((size_t)t * H + h) * pieces * part;
                    float top = -1e30f, total = 0.0f, *out = mixed + h * hd;
                    for (int p = 0; p < seen; p++) top = piece[p * part + hd + 1] > top ? piece[p * part + hd + 1] : top;
                    memset(out, 0, hd * sizeof(float));
                    for (int p = 0; p < seen; p++) {
                        const float weight = exponential(piece[p * part + hd + 1] - top);
                        total += weight * piece[p * part + hd];
                        for (int i = 0; i < hd; i++) out[i] += weight * piece[p * part + i];
                    }
                    for (int i = 0; i < hd; i++) out[i] /= total;
                }
                factor[t] = quantise(mixed, NULL, 0, H * hd, q + (size_t)t * H * hd);
            }
            multiply(&layer->o, q, factor, tokens, MINE(D), x, D, 1);
#pragma omp barrier
            for (int t = 0; t < tokens; t++) factor[t] = quantise(x + t * D, layer->between, m->eps, D, q + t * D);
            const int from = F * me / all, to = F * (me + 1) / all;
            multiply(&layer->gate_up, q, factor, tokens, from, to, inner, 2 * F, 0);
            multiply(&layer->gate_up, q, factor, tokens, F + from, F + to, inner, 2 * F, 0);
            for (int t = 0; t < tokens; t++)
                for (int i = from; i < to; i++) {
                    float *gate = inner + (size_t)t * 2 * F + i;
                    *gate = *gate / (1.0f + exponential(-*gate)) * gate[F];
                }
#pragma omp barrier
            for (int t = 0; t < tokens; t++)
                factor[t] = quantise(inner + (size_t)t * 2 * F, NULL, 0, F, q + (size_t)t * F);
            multiply(&layer->down, q, factor, tokens, MINE(D), x, D, 1);
#pragma omp barrier
        }
    }
    for (int t = 0; t < tokens; t++) {
        float squares = 0.0f;
        for (int i = 0; i < D; i++) squares += x[t * D + i] * x[t * D + i];
        float factor = 1.0f / sqrtf(squares / D + m->eps);
        for (int i = 0; i < D; i++) x[t * D + i] *= factor * m->norm[i];
    }
}
