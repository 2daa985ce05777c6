/* The executables in /etc/mitos/after-fork.d: what a sandbox's owner wants done in every fork, before its first
 * command. They run one after the other, sorted by name; the first that fails ends the run. */
#ifndef MITOS_HOOK_H
#define MITOS_HOOK_H

#include <stdbool.h>

enum hook_state { HOOKS_RUNNING, HOOKS_DONE, HOOKS_FAILED };

/* Begins; a run that is still going on is given up first. */
void hook_start(void);
enum hook_state hook_state(void);
/* After HOOKS_FAILED: the executable, and what went wrong, in printable ASCII. */
const char *hook_path(void);
const char *hook_failure(void);

/* The event loop's part. */
void hook_prepare(void);
void hook_pump(void);

#endif
