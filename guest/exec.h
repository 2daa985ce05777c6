/* EXEC: commands with pipes or a terminal. Files are in file.h, code cells in kernel.h. */
#ifndef MITOS_EXEC_H
#define MITOS_EXEC_H

#include "stream.h"

extern const struct operation exec_operation;

/* The event loop's part: waits for the commands' descriptors and deadlines, and moves their bytes. */
void exec_prepare(void);
void exec_pump(void);

#endif
