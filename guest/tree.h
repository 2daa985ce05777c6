/* Killing a process and everything that descends from it. */
#ifndef MITOS_TREE_H
#define MITOS_TREE_H

#include <stdbool.h>
#include <sys/types.h>

/* Stops every descendant of `root` (and `root` itself, if asked) until no new one turns up, then kills them all: a
 * process that forks as fast as it can does not get away. Returns true when there was none. */
bool tree_kill(pid_t root, bool with_root);

#endif
