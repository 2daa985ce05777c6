/* The input of a command, on its way from the stream to the process or its terminal. */
#ifndef MITOS_INPUT_H
#define MITOS_INPUT_H

#include "command.h"

/* Writes pending input as far as the process takes it. */
void input_feed(struct command *command);
/* True while input waits for a typed signal to be sent. */
bool input_held(const struct command *command);

#endif
