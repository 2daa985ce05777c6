/* RUN_CODE: the processes that run code cells, and the cells waiting for them. kernels/ holds the programs. */
#ifndef MITOS_KERNEL_H
#define MITOS_KERNEL_H

#include "stream.h"

enum { RESEED_ENTROPY_SIZE = 32, GENERATION_SIZE = 16 };

extern const struct operation run_code_operation;

/* Tells every live kernel its new entropy and the changed variables (the ENV fields). */
void kernel_identify(const uint8_t *entropy, const uint8_t *generation, struct fields fields);
/* True once every kernel that was idle at kernel_identify has confirmed. */
bool kernel_all_confirmed(void);

/* The event loop's part. */
void kernel_prepare(void);
void kernel_pump(void);

#endif
