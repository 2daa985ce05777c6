/* ATTACH, COMMANDS and END_COMMAND: commands that are found again by their id. */
#ifndef MITOS_ATTACH_H
#define MITOS_ATTACH_H

#include "stream.h"

extern const struct operation attach_operation, commands_operation, end_command_operation;

#endif
