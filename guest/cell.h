/* RUN_CODE: one piece of code on its way through a kernel. kernel.c runs the processes. */
#ifndef MITOS_CELL_H
#define MITOS_CELL_H

#include "message.h"
#include "stream.h"

struct kernel;

struct cell {
	struct cell *next;
	struct kernel *kernel;
	struct stream *stream; /* NULL once forgotten: the events are then dropped */
	struct buffer code;
	size_t padding;           /* fills up a message that the kernel began and did not end */
	struct buffer closing_events; /* the agent's own events, after which the cell is done */
	uint32_t timeout_ms;
	int64_t sent_at; /* when it was given to the kernel */
	int64_t interrupt_at, kill_at;
	uint8_t exit_code;
	bool canceled, done;
};

extern const struct operation run_code_operation;

/* True when somebody still reads the cell's events. */
bool cell_is_heard(const struct cell *cell);
void cell_free(struct cell *cell);
/* Ends the cell with an error of the agent's own. `value` must need no escape in JSON. `missing` bytes of a message
 * that the kernel began will not come. */
void cell_end_with(struct cell *cell, const char *name, const char *value, uint32_t missing);
/* Sends what the agent itself says at the end; true once all of it is sent. */
bool cell_send_closing_events(struct cell *cell);
/* Ends the cell's stream. */
void cell_close(struct cell *cell);

#endif
