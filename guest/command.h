/* The commands of the sandbox: processes with their input, their output and how they ended.
 *
 * Output goes from the pipes into the command's ring and from there to its stream. With a stream, a command waits
 * for its reader; without one it runs on, and the ring keeps the last part. A command with an id can be found again
 * (attach.c): while it runs, and once it has ended if it is kept. */
#ifndef MITOS_COMMAND_H
#define MITOS_COMMAND_H

#include "process.h"
#include "ring.h"
#include "stream.h"

#include <unistd.h>

enum { OUTPUTS = 2 };

struct command {
	struct command *next;
	char *id;              /* NULL: cannot be found again */
	char *title;           /* the arguments, for listings; cut when long */
	char *name, *directory; /* for messages */
	struct stream *stream; /* the reader, or NULL */
	struct stream *feeder; /* the stream that sends input and gets credit for it, or NULL */
	struct process *process; /* NULL once ended */
	bool keep; /* lives on without a stream, and is remembered when it has ended */
	bool terminal;

	int input, input_place;
	bool input_ended;
	int64_t held_until_ns; /* the input waits until then, or until a typed signal has been sent */
	size_t line_length;    /* typed into the terminal and not ended yet */
	struct buffer pending; /* at most the stream's credit */
	int outputs[OUTPUTS], output_places[OUTPUTS];
	struct ring ring;

	int64_t started_ns, deadline_ns;
	int signal;    /* to be sent once the process is started, or 0 */
	bool killing;  /* the whole tree goes: timed out, canceled, or ended by request */
	bool timed_out, canceled;
	bool killed;   /* nothing is left of the tree: what is in the pipes now is all there is */

	bool ended;
	uint64_t ended_number; /* grows: who ended first */
	enum status status;    /* what its CLOSE says */
	struct buffer answer;
};

static inline void close_descriptor(int *descriptor)
{
	if (*descriptor >= 0)
		close(*descriptor);
	*descriptor = -1;
}

/* Starts the process; the command belongs to this file from now on. `id` may be NULL. */
void command_start(struct command *command, const struct launch *launch, const char *id);
struct command *command_find(const char *id);
/* Calls `visit` for each command that has an id. */
void command_each(void (*visit)(const struct command *command, void *context), void *context);
/* Makes `stream` the reader from `offset` on; an earlier one is closed. Returns how many bytes were skipped. */
uint64_t command_attach(struct command *command, struct stream *stream, uint64_t offset);
/* Kills all processes of a running command; forgets an ended one. */
void command_end(struct command *command);
/* Adds to the output, as if the process had said it. */
void command_say(struct command *command, enum channel channel, const uint8_t *data, size_t size);

/* Of every stream whose owner is a command. */
void command_on_control(struct stream *stream, uint8_t code, struct fields fields);
void command_on_cancel(struct stream *stream);
void command_on_forget(struct stream *stream);
void command_on_abandon(struct stream *stream);

/* The event loop's part. */
void command_prepare(void);
void command_pump(void);

#endif
