/* Parts of a path. */
#ifndef MITOS_PATH_H
#define MITOS_PATH_H

/* What follows the last slash; the path itself when nothing does. */
const char *path_base_name(const char *path);
/* Cuts slashes off the end; "/" stays. */
void path_strip_slashes(char *path);

#endif
