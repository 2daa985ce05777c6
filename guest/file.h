/* The file operations that take one step (STAT, MKDIR) or stream content (READ_FILE, WRITE_FILE, LIST).
 * REMOVE, which takes many steps, is in remove.h. */
#ifndef MITOS_FILE_H
#define MITOS_FILE_H

#include "stream.h"

extern const struct operation stat_operation, mkdir_operation;
extern const struct operation read_file_operation, write_file_operation, list_operation;

/* The event loop's part: moves one portion of each file. */
/* Whether the path names a file that WRITE_FILE has not put in place yet, and whether there was one before. */
bool file_is_temporary(const char *path);
bool file_is_replacement(const char *path);

void file_prepare(void);
void file_pump(void);

#endif
