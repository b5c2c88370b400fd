// Causal attention inside each of many short sequences that lie one after the other, forward and backward.
//
// A pair of a sequence and a head fits into the first-level cache, so all of it happens there: scores, softmax and
// products, and in the backward pass the pattern again from its log-sum-exp. One thread does a pair from beginning to
// end, so the number of threads touches no bit. The vectors are the compiler's own (GCC and Clang), 16 floats wide.
//
// Compiled with D_HEAD (a multiple of 16) and, for bfloat16 tensors, BFLOAT16. Sums and exponentials are float32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int LANES = 16, VECTORS = D_HEAD / LANES, ROWS = 4;
static_assert(D_HEAD % LANES == 0, "heads are whole vectors");

#define ALIGNED_VECTOR(type, name, bytes, align) \
    typedef type name __attribute__((vector_size(bytes), aligned(align), may_alias))
ALIGNED_VECTOR(float, Floats, 64, 64);
ALIGNED_VECTOR(float, AnywhereFloats, 64, 4);
ALIGNED_VECTOR(int32_t, Ints, 64, 64);
ALIGNED_VECTOR(uint32_t, Words, 64, 64);
ALIGNED_VECTOR(uint16_t, Halves, 32, 2);

const Ints LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

#ifdef BFLOAT16
using Number = uint16_t;
inline Floats get(const Number* from) {
    return (Floats)(__builtin_convertvector(*(const Halves*)from, Words) << 16);
}
inline void put(Number* to, Floats values) {  // rounds to nearest, ties to even
    Words bits = (Words)values;
    bits += 0x7fff + ((bits >> 16) & 1);
    *(Halves*)to = __builtin_convertvector(bits >> 16, Halves);
}
#else
using Number = float;
inline Floats get(const Number* from) { return *(const AnywhereFloats*)from; }
inline void put(Number* to, Floats values) { *(AnywhereFloats*)to = values; }
#endif

inline Floats& at(float* place) { return *(Floats*)place; }
inline const Floats& at(const float* place) { return *(const Floats*)place; }
inline Floats fill(float value) { return Floats{} + value; }

// eˣ to two units in the last place, by the polynomial of the Cephes library; below e⁻⁸⁷ it is e⁻⁸⁷.
inline Floats exponential(Floats x) {
    x = x < -87.0f ? fill(-87.0f) : x;
    const Floats magic = fill(12582912.0f);  // adding it rounds to a whole number
    const Floats shifted = x * 1.44269504088896f + magic;
    const Ints exponent = (Ints)shifted - (Ints)magic;
    const Floats whole = shifted - magic;
    const Floats r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats p = fill(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * (r * r) + r + 1.0f) * (Floats)((exponent + 127) << 23);
}

// A tree of pairwise steps: adding lane after lane would wait for every addition.
#define FOLDED(combine)                                                                                  \
    do {                                                                                                 \
        Floats y;                                                                                        \
        y = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);         \
        x = combine;                                                                                     \
        y = __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);         \
        x = combine;                                                                                     \
        y = __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);         \
        x = combine;                                                                                     \
        y = __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);         \
        x = combine;                                                                                     \
        return x[0];                                                                                     \
    } while (0)

inline float sum(Floats x) { FOLDED(x + y); }
inline float largest(Floats x) { FOLDED(x > y ? x : y); }

// out[r][j] = Σ_d a[r][d] b[d][j] for ROWS rows and j < columns, a multiple of LANES.
inline void products(const float* a, const float* b, int width, int columns, float* out) {
    int j = 0;
    for (; j + LANES < columns; j += 2 * LANES) {  // two vectors of columns share what is read of a
        Floats left[ROWS] = {}, right[ROWS] = {};
        for (int d = 0; d < D_HEAD; ++d)
            for (int r = 0; r < ROWS; ++r) {
                const Floats own = fill(a[r * D_HEAD + d]);
                left[r] += own * at(b + d * width + j);
                right[r] += own * at(b + d * width + j + LANES);
            }
        for (int r = 0; r < ROWS; ++r) {
            at(out + r * width + j) = left[r];
            at(out + r * width + j + LANES) = right[r];
        }
    }
    if (j < columns) {
        Floats total[ROWS] = {};
        for (int d = 0; d < D_HEAD; ++d)
            for (int r = 0; r < ROWS; ++r) total[r] += a[r * D_HEAD + d] * at(b + d * width + j);
        for (int r = 0; r < ROWS; ++r) at(out + r * width + j) = total[r];
    }
}

// out[r][:] = Σ_{j < n} weights[r][j] values[j][:] for ROWS rows.
inline void mixtures(const float* weights, int width, const float* values, int n, float* out) {
    Floats total[ROWS][VECTORS] = {};
    for (int j = 0; j < n; ++j)
        for (int c = 0; c < VECTORS; ++c)
            for (int r = 0; r < ROWS; ++r)
                total[r][c] += weights[r * width + j] * at(values + j * D_HEAD + c * LANES);
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < VECTORS; ++c) at(out + r * D_HEAD + c * LANES) = total[r][c];
}

// to[j][:] += Σ_r weights[r][j] rows[r][:] for j < n.
inline void spread(const float* weights, int width, const float* rows, int n, float* to) {
    for (int c = 0; c < VECTORS; ++c) {
        Floats own[ROWS];
        for (int r = 0; r < ROWS; ++r) own[r] = at(rows + r * D_HEAD + c * LANES);
        for (int j = 0; j < n; ++j) {
            Floats total = at(to + j * D_HEAD + c * LANES);
            for (int r = 0; r < ROWS; ++r) total += weights[r * width + j] * own[r];
            at(to + j * D_HEAD + c * LANES) = total;
        }
    }
}

void load(const Number* from, int64_t stride, int n, int width, float* to) {
    for (int i = 0; i < n; ++i)
        for (int c = 0; c < VECTORS; ++c) at(to + i * D_HEAD + c * LANES) = get(from + i * stride + c * LANES);
    std::memset(to + n * D_HEAD, 0, sizeof(float) * (width - n) * D_HEAD);
}

void store(const float* from, int n, int64_t stride, Number* to) {
    for (int i = 0; i < n; ++i)
        for (int c = 0; c < VECTORS; ++c) put(to + i * stride + c * LANES, at(from + i * D_HEAD + c * LANES));
}

void transpose(const float* from, int width, float* to) {
    for (int j = 0; j < width; ++j)
        for (int d = 0; d < D_HEAD; ++d) to[d * width + j] = from[j * D_HEAD + d];
}

struct Scratch {  // one thread's memory, in whole vectors
    float* next;
    float* begin;
    explicit Scratch(size_t floats) {
        begin = next = static_cast<float*>(std::aligned_alloc(64, sizeof(float) * floats));
        if (!begin) std::abort();
    }
    Scratch(const Scratch&) = delete;
    ~Scratch() { std::free(begin); }
    float* take(size_t floats) {
        float* own = next;
        next += floats;
        return own;
    }
};

inline int in_vectors(int64_t n) { return int((n + LANES - 1) / LANES * LANES); }

}  // namespace

// qkv [token 3 head d], starts [sequences + 1], out [token head d], log_sums [token head].
extern "C" void ragged_forward(const Number* qkv, const int64_t* starts, int64_t sequences, int64_t heads,
                               int64_t longest, Number* out, float* log_sums, int threads) {
    const int width = in_vectors(longest);
    const int64_t of_head = heads * D_HEAD, stride = 3 * of_head;
    const float scale = 1.0f / std::sqrt(float(D_HEAD));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Scratch memory(4 * width * D_HEAD + ROWS * (width + D_HEAD));
        float *q = memory.take(width * D_HEAD), *k = memory.take(width * D_HEAD);
        float *v = memory.take(width * D_HEAD), *k_t = memory.take(width * D_HEAD);
        float *pattern = memory.take(ROWS * width), *mixed = memory.take(ROWS * D_HEAD);
#pragma omp for schedule(dynamic, 16)
        for (int64_t pair = 0; pair < sequences * heads; ++pair) {
            const int64_t first = starts[pair / heads], head = pair % heads;
            const int n = int(starts[pair / heads + 1] - first);
            const Number* own = qkv + first * stride + head * D_HEAD;
            load(own, stride, n, width, q);
            load(own + of_head, stride, n, width, k);
            load(own + 2 * of_head, stride, n, width, v);
            transpose(k, width, k_t);
            for (int top = 0; top < n; top += ROWS) {
                const int columns = std::min(width, in_vectors(top + ROWS)), rows = std::min(ROWS, n - top);
                products(q + top * D_HEAD, k_t, width, columns, pattern);
                float inverse[ROWS];
                for (int r = 0; r < rows; ++r) {
                    float* row = pattern + r * width;
                    Floats most = fill(-INFINITY), total = {};
                    for (int j = 0; j < columns; j += LANES) {
                        const Floats score = LANE + j > top + r ? fill(-INFINITY) : at(row + j) * scale;
                        at(row + j) = score;
                        most = score > most ? score : most;
                    }
                    const float peak = largest(most);
                    for (int j = 0; j < columns; j += LANES) {
                        const Floats weight = exponential(at(row + j) - peak);
                        at(row + j) = LANE + j > top + r ? Floats{} : weight;
                        total += at(row + j);
                    }
                    const float whole = sum(total);
                    inverse[r] = 1 / whole;
                    log_sums[(first + top + r) * heads + head] = peak + std::log(whole);
                }
                mixtures(pattern, width, v, std::min(n, top + ROWS), mixed);
                for (int r = 0; r < rows; ++r)
                    for (int c = 0; c < VECTORS; ++c) at(mixed + r * D_HEAD + c * LANES) *= inverse[r];
                store(mixed, rows, of_head, out + (first + top) * of_head + head * D_HEAD);
            }
        }
    }
}

// grad_out as out, grad_qkv as qkv. With P the pattern: dV = Pᵀ dO, dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O)), dQ = dS K, dK = dSᵀ Q.
extern "C" void ragged_backward(const Number* qkv, const Number* out, const float* log_sums, const Number* grad_out,
                                const int64_t* starts, int64_t sequences, int64_t heads, int64_t longest,
                                Number* grad_qkv, int threads) {
    const int width = in_vectors(longest);
    const int64_t of_head = heads * D_HEAD, stride = 3 * of_head;
    const float scale = 1.0f / std::sqrt(float(D_HEAD));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Scratch memory(9 * width * D_HEAD + 2 * ROWS * width + ROWS * D_HEAD);
        float *q = memory.take(width * D_HEAD), *k = memory.take(width * D_HEAD), *v = memory.take(width * D_HEAD);
        float *k_t = memory.take(width * D_HEAD), *v_t = memory.take(width * D_HEAD);
        float *o = memory.take(width * D_HEAD), *grad_o = memory.take(width * D_HEAD);
        float *grad_k = memory.take(width * D_HEAD), *grad_v = memory.take(width * D_HEAD);
        float *pattern = memory.take(ROWS * width), *grad_scores = memory.take(ROWS * width);
        float* grad_q = memory.take(ROWS * D_HEAD);
#pragma omp for schedule(dynamic, 16)
        for (int64_t pair = 0; pair < sequences * heads; ++pair) {
            const int64_t first = starts[pair / heads], head = pair % heads;
            const int n = int(starts[pair / heads + 1] - first);
            const Number* own = qkv + first * stride + head * D_HEAD;
            Number* grad_own = grad_qkv + first * stride + head * D_HEAD;
            load(own, stride, n, width, q);
            load(own + of_head, stride, n, width, k);
            load(own + 2 * of_head, stride, n, width, v);
            load(out + first * of_head + head * D_HEAD, of_head, n, width, o);
            load(grad_out + first * of_head + head * D_HEAD, of_head, n, width, grad_o);
            transpose(k, width, k_t);
            transpose(v, width, v_t);
            std::memset(grad_k, 0, sizeof(float) * n * D_HEAD);
            std::memset(grad_v, 0, sizeof(float) * n * D_HEAD);
            for (int top = 0; top < n; top += ROWS) {
                const int columns = std::min(width, in_vectors(top + ROWS)), rows = std::min(ROWS, n - top);
                products(q + top * D_HEAD, k_t, width, columns, pattern);
                products(grad_o + top * D_HEAD, v_t, width, columns, grad_scores);
                for (int r = 0; r < ROWS; ++r) {
                    const int i = top + r;
                    float *row = pattern + r * width, *grad_row = grad_scores + r * width;
                    if (r >= rows) {  // beyond the last token: counts nothing
                        std::memset(row, 0, sizeof(float) * columns);
                        std::memset(grad_row, 0, sizeof(float) * columns);
                        continue;
                    }
                    Floats both = {};
                    for (int c = 0; c < VECTORS; ++c)
                        both += at(o + i * D_HEAD + c * LANES) * at(grad_o + i * D_HEAD + c * LANES);
                    const float shared = sum(both), log_sum = log_sums[(first + i) * heads + head];
                    for (int j = 0; j < columns; j += LANES) {
                        const Floats weight = exponential(at(row + j) * scale - log_sum);
                        at(row + j) = LANE + j > i ? Floats{} : weight;
                        at(grad_row + j) = at(row + j) * (at(grad_row + j) - shared) * scale;
                    }
                }
                const int seen = std::min(n, top + ROWS);
                mixtures(grad_scores, width, k, seen, grad_q);
                store(grad_q, rows, stride, grad_own + top * stride);
                spread(grad_scores, width, q + top * D_HEAD, seen, grad_k);
                spread(pattern, width, grad_o + top * D_HEAD, seen, grad_v);
            }
            store(grad_k, n, stride, grad_own + of_head);
            store(grad_v, n, stride, grad_own + 2 * of_head);
        }
    }
}
