/* What an EXEC asks for, checked. command.h runs it. */
#ifndef MITOS_EXEC_REQUEST_H
#define MITOS_EXEC_REQUEST_H

#include "stream.h"

enum { COMMAND_ID_LIMIT = 64 };

struct exec_request {
	char **argv;
	char **environment;
	char *id; /* NULL when there is none */
	char *directory;
	char *terminal; /* NULL without one */
	uint64_t timeout_ms, has_input, keep, cols, rows;
};

/* Returns why the request cannot be, or NULL. Free it in either case. */
const char *exec_request_read(struct fields fields, struct exec_request *request);
void exec_request_free(struct exec_request *request);

#endif
