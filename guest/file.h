/* The file operations that take one step (STAT, MKDIR) or stream content (READ_FILE, WRITE_FILE, LIST).
 * REMOVE, which takes many steps, is in remove.h. */
#ifndef MITOS_FILE_H
#define MITOS_FILE_H

#include "stream.h"

extern const struct operation stat_operation, mkdir_operation;
extern const struct operation read_file_operation, write_file_operation, list_operation;

/* The event loop's part: moves one portion of each file. */
void file_prepare(void);
void file_pump(void);

#endif
