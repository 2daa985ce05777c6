/* The sandbox's environment: PID 1's own variables, changed by IDENTIFY, inherited by every process. */
#ifndef MITOS_ENVIRONMENT_H
#define MITOS_ENVIRONMENT_H

#include "stream.h"

/* True when every ENV field is `NAME=value` without a NUL byte. */
bool environment_valid(struct fields fields);
/* Sets the variables of the ENV fields for good. */
void environment_change(struct fields fields);
/* The environment with TERM set to `terminal` unless that is NULL, and the ENV fields over it.
 * Ends with NULL; free it with environment_free. */
char **environment_make(struct fields fields, const char *terminal);
void environment_free(char **environment);

#endif
