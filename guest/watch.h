/* WATCH: reports what changes in a directory, or in everything below it. */
#ifndef MITOS_WATCH_H
#define MITOS_WATCH_H

#include "stream.h"

extern const struct operation watch_operation;

void watch_prepare(void);
void watch_pump(void);

#endif
