/* Loaded before a program in whose libraries each `cpuid` was replaced by 0f ff, which no processor executes: answers as
 * this processor would if it had AVX2 and neither AVX-512 nor AMX, nor products of bytes (VNNI) of any width. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <ucontext.h>

enum { REPLACED = 0xff0f };

static struct sigaction before;

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (*(const unsigned short *)registers[REG_RIP] != REPLACED) {
        sigaction(number, &before, 0); /* the instruction is met again, as if this were not here */
        return;
    }
    const unsigned leaf = registers[REG_RAX], part = registers[REG_RCX];
    unsigned a, b, c, d;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) {
        b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 3u << 26 | 1u << 28 | 3u << 30);
        c &= ~(1u << 1 | 1u << 6 | 3u << 11 | 1u << 14);
        d &= ~(3u << 2 | 1u << 8 | 15u << 22);
    } else if (leaf == 7 && part == 1) {
        a &= ~(3u << 4 | 1u << 21 | 1u << 23);
        d &= ~(3u << 4 | 1u << 10 | 1u << 19);
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGILL, &action, &before);
}
