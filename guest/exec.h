/* EXEC: starting a command, with a terminal or pipes. command.h runs it. */
#ifndef MITOS_EXEC_H
#define MITOS_EXEC_H

#include "stream.h"

extern const struct operation exec_operation;

#endif
