/* REMOVE: a tree goes in portions, one a turn of the event loop, so a big one holds up nobody. */
#ifndef MITOS_REMOVE_H
#define MITOS_REMOVE_H

#include "stream.h"

extern const struct operation remove_operation;

void remove_prepare(void);
void remove_pump(void);

#endif
