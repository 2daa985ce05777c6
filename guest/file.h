/* Files: MKDIR, which takes one step, READ_FILE and WRITE_FILE, which stream content. REMOVE, which takes many steps, is
 * in remove.h; what is where, in directory.h. */
#ifndef MITOS_FILE_H
#define MITOS_FILE_H

#include "stream.h"

extern const struct operation mkdir_operation, read_file_operation, write_file_operation;

/* Whether the path names a file that WRITE_FILE has not put in place yet, and whether there was one before. */
bool file_is_temporary(const char *path);
bool file_is_replacement(const char *path);

void file_prepare(void);
void file_pump(void);

#endif
