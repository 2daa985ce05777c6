/* IDENTIFY: what makes this sandbox differ from the snapshot it came from. */
#ifndef MITOS_IDENTITY_H
#define MITOS_IDENTITY_H

#include "stream.h"

extern const struct operation identify_operation;

/* The event loop's part: answers once the kernels have confirmed. */
void identity_prepare(void);
void identity_pump(void);

#endif
