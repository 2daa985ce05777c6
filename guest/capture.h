/* What a kernel and its children write to standard output and error: relayed as STDOUT and STDERR messages. */
#ifndef MITOS_CAPTURE_H
#define MITOS_CAPTURE_H

#include "stream.h"

enum { CAPTURED = 2 };

struct capture {
	int pipes[CAPTURED], places[CAPTURED]; /* -1 when closed */
	size_t owed[CAPTURED];                 /* still to be relayed before the kernel's next message */
};

#define CAPTURE_CLOSED ((struct capture){.pipes = {-1, -1}, .places = {NOT_POLLED, NOT_POLLED}})

/* Makes the pipes; `writers` are the kernel's ends. Returns an errno, and has then made none. */
int capture_open(struct capture *capture, int writers[CAPTURED]);
void capture_close(struct capture *capture);
/* A message of the kernel was received: what the pipes hold now was said before it. At most a pipe's content each,
 * so that a child that never stops writing cannot hold the message back. */
void capture_owe(struct capture *capture);
/* Relays to the stream, or drops when that is NULL. True when nothing is owed any more. */
bool capture_relay(struct capture *capture, struct stream *stream);
/* Adds the pipes to the next wait. */
void capture_prepare(struct capture *capture, const struct stream *stream);
bool capture_ready(const struct capture *capture);

#endif
