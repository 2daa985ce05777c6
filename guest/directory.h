/* What is where: STAT of one path, LIST of a directory. */
#ifndef MITOS_DIRECTORY_H
#define MITOS_DIRECTORY_H

#include "stream.h"

extern const struct operation stat_operation, list_operation;

void directory_prepare(void);
void directory_pump(void);

#endif
