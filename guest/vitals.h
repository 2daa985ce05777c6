/* PROCESSES, SIGNAL, VITALS: what runs in the sandbox, and signals to it. */
#ifndef MITOS_VITALS_H
#define MITOS_VITALS_H

#include "stream.h"

extern const struct operation processes_operation, signal_operation, vitals_operation;

/* The event loop's part. */
void vitals_prepare(void);
void vitals_pump(void);

#endif
