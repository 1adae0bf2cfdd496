/* AVX-512 alone. */
#include "avx512.h"

static void multiply(const Acts *acts, const Linear *linear, const Target *target) {
    multiply_by_registers(acts, linear, target);
}

#define NEEDS {HAS_AVX512, HAS_AVX512 | HAS_BF16, HAS_AVX512 | HAS_VNNI}
#define FAST {1, 1, 1}
#include "table.h"
