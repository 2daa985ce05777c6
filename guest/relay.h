/* A stream joined to a socket: bytes both ways, each side's end of output kept apart from the other's. */
#ifndef MITOS_RELAY_H
#define MITOS_RELAY_H

#include "stream.h"

extern const struct operation dial_operation;
extern const struct operation accept_operation;

void relay_prepare(void);
void relay_pump(void);
/* In a forked child that knows who it is: writes the replies that the parent set for its connections, and closes them. */
void relay_part(void);

#endif
