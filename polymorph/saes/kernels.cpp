// The passes over features [n f] between the products of a training step, each fused into one loop.
// Every function exists for float and for bfloat16; sums are kept in float. passes.py states what each computes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct half {
  uint16_t bits;
};

inline float up(float value) { return value; }

inline float up(half value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

template <typename T>
T down(float value);

template <>
inline float down<float>(float value) {
  return value;
}

template <>
inline half down<half>(float value) {  // rounds to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return half{static_cast<uint16_t>(value != value ? 0x7fc0u : rounded)};
}

// pre + bias, where that is above 0, in place.
template <typename T>
void rectified(T* __restrict pre, const float* __restrict bias, int64_t n, int64_t f) {
  for (int64_t i = 0; i < n; i++, pre += f) {
    for (int64_t j = 0; j < f; j++) {
      const float value = up(pre[j]) + bias[j];
      pre[j] = down<T>(value < 0.0f ? 0.0f : value);
    }
  }
}

// gradient + price of features that fire; per feature the sum of that, how often it fired, the sum of it.
template <typename T>
void masked(const T* __restrict features, T* __restrict gradient, const float* __restrict price,
            float* __restrict sums, int64_t n, int64_t f) {
  float *__restrict bias = sums, *__restrict fired = sums + f, *__restrict total = sums + 2 * f;
  std::fill(sums, sums + 3 * f, 0.0f);
  for (int64_t i = 0; i < n; i++, features += f, gradient += f) {
    for (int64_t j = 0; j < f; j++) {
      const float value = up(features[j]);
      const float own = value != 0.0f ? up(gradient[j]) + price[j] : 0.0f;
      gradient[j] = down<T>(own);
      bias[j] += own;
      fired[j] += value != 0.0f ? 1.0f : 0.0f;
      total[j] += value;
    }
  }
}

// vectors: bias of the gates, scale, bias of the magnitudes.
template <typename T>
void split(const T* __restrict pre, const float* __restrict vectors, T* __restrict features, T* __restrict gates,
           int64_t n, int64_t f) {
  const float *gate_bias = vectors, *scale = vectors + f, *bias = vectors + 2 * f;
  for (int64_t i = 0; i < n; i++, pre += f, features += f, gates += f) {
    for (int64_t j = 0; j < f; j++) {
      const float value = up(pre[j]), gate = value + gate_bias[j], magnitude = value * scale[j] + bias[j];
      gates[j] = down<T>(gate < 0.0f ? 0.0f : gate);
      features[j] = down<T>(gate > 0.0f && !(magnitude < 0.0f) ? magnitude : 0.0f);
    }
  }
}

// pre becomes its gradient; sums: of the gates' bias, of the magnitudes' bias, of pre times that, fired, gates.
template <typename T>
void joined(T* __restrict pre, const float* __restrict scale, const T* __restrict features, const T* __restrict gates,
            const T* __restrict by_features, const T* __restrict by_gates, const float* __restrict price,
            float* __restrict sums, int64_t n, int64_t f) {
  std::fill(sums, sums + 5 * f, 0.0f);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < f; j++) {  // every load is made in any case, or the loop would not be vectorized
      const float gate = up(gates[j]), feature = up(features[j]), value = up(pre[j]);
      const float gate_gradient = up(by_gates[j]) + price[j], gradient = up(by_features[j]);
      const float from_gate = gate != 0.0f ? gate_gradient : 0.0f;
      const float from_magnitude = feature != 0.0f ? gradient : 0.0f;
      pre[j] = down<T>(from_magnitude * scale[j] + from_gate);
      sums[j] += from_gate;
      sums[f + j] += from_magnitude;
      sums[2 * f + j] += from_magnitude * value;
      sums[3 * f + j] += feature != 0.0f ? 1.0f : 0.0f;
      sums[4 * f + j] += gate;
    }
    pre += f, features += f, gates += f, by_features += f, by_gates += f;
  }
}

inline uint32_t ordered(float value) {  // keys order as the values do
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits ^ ((bits >> 31) ? 0xffffffffu : 0x80000000u);
}

inline int32_t count_from(const uint32_t* keys, uint32_t least, int64_t f) {
  int32_t count = 0;
  for (int64_t j = 0; j < f; j++) count += keys[j] >= least;
  return count;
}

// The largest key that at least k keys reach, or any that exactly k do. 0 if there are no k.
inline uint32_t threshold(const uint32_t* keys, int64_t k, int64_t f) {
  uint32_t found = 0;
  for (int bit = 31; bit >= 0; bit--) {
    const uint32_t tried = found | (1u << bit);
    const int32_t count = count_from(keys, tried, f);
    if (count >= k) found = tried;
    if (count == k) break;
  }
  return found;
}

// Of each row the k entries whose entry times norm is largest, among the allowed; the others become 0.
template <typename T>
void strongest(const T* __restrict pre, const float* __restrict norms, const uint8_t* __restrict allowed,
               T* __restrict features, int64_t n, int64_t f, int64_t k, int32_t positive) {
  std::vector<uint32_t> keys(f);
  for (int64_t i = 0; i < n; i++, pre += f, features += f) {
    for (int64_t j = 0; j < f; j++) keys[j] = allowed[j] ? ordered(up(pre[j]) * norms[j]) : 0u;
    const uint32_t least = k < f ? threshold(keys.data(), k, f) : 0u;
    const int32_t reached = count_from(keys.data(), least, f);
    for (int64_t j = 0; j < f; j++) {
      const float value = up(pre[j]);
      const bool kept = keys[j] >= least && allowed[j] && !(positive && value < 0.0f);
      features[j] = down<T>(kept ? value : 0.0f);
    }
    if (reached <= k) continue;
    int64_t surplus = reached - k;  // of equal ones the first are kept
    for (int64_t j = f - 1; j >= 0 && surplus > 0; j--) {
      if (keys[j] == least) features[j] = down<T>(0.0f), surplus--;
    }
  }
}

}  // namespace

#define EXPORT(T, NAME)                                                                                            \
  extern "C" void rectified_##NAME(T* pre, const float* bias, int64_t n, int64_t f) {                              \
    rectified<T>(pre, bias, n, f);                                                                                 \
  }                                                                                                                \
  extern "C" void masked_##NAME(const T* features, T* gradient, const float* price, float* sums, int64_t n,        \
                                int64_t f) {                                                                       \
    masked<T>(features, gradient, price, sums, n, f);                                                              \
  }                                                                                                                \
  extern "C" void split_##NAME(const T* pre, const float* vectors, T* features, T* gates, int64_t n, int64_t f) {  \
    split<T>(pre, vectors, features, gates, n, f);                                                                 \
  }                                                                                                                \
  extern "C" void joined_##NAME(T* pre, const float* scale, const T* features, const T* gates,                     \
                                const T* by_features, const T* by_gates, const float* price, float* sums,          \
                                int64_t n, int64_t f) {                                                            \
    joined<T>(pre, scale, features, gates, by_features, by_gates, price, sums, n, f);                              \
  }                                                                                                                \
  extern "C" void strongest_##NAME(const T* pre, const float* norms, const uint8_t* allowed, T* features,          \
                                   int64_t n, int64_t f, int64_t k, int32_t positive) {                            \
    strongest<T>(pre, norms, allowed, features, n, f, k, positive);                                                \
  }

EXPORT(float, float32)
EXPORT(half, bfloat16)
