/* The streams on the link: who is open, what each may still send, and the two queues of the link itself.
 *
 * Memory is bounded: a stream's input by the credit it was given, the out queue by stream_room, which
 * answers 0 while the queue is full or the stream has no credit. Operations live in their own files and are
 * called through `struct operation`. */
#ifndef MITOS_STREAM_H
#define MITOS_STREAM_H

#include "link.h"

struct stream;

/* What an operation does when something arrives on its stream. Only `open` is mandatory. A function may close the
 * stream; it is gone then. */
struct operation {
	void (*open)(struct stream *stream, struct fields fields);
	void (*input)(struct stream *stream, const uint8_t *data, size_t size);
	void (*input_end)(struct stream *stream);
	void (*control)(struct stream *stream, uint8_t code, struct fields fields);
	void (*cancel)(struct stream *stream);
	/* The stream vanishes without a CLOSE: this is a forked child now, or the server is another one. `stream` is
	 * freed after the call. */
	void (*forget)(struct stream *stream);
	/* For the second case, where it differs: nobody waits for the work any more. As `forget` if NULL. */
	void (*abandon)(struct stream *stream);
};

struct stream {
	struct stream *next;
	const struct operation *operation;
	void *owner; /* the operation's own state */
	uint64_t send_credit;
	uint32_t receive_credit, consumed;
	uint32_t id;
	bool input_ended;
};

/* The table of operations by code, in main.c; NULL where there is none. */
extern const struct operation *const operations[];
extern const size_t operation_count;

/* `build` stays the caller's, for ever. */
void stream_start(const char *build);
/* Takes over what an IDENTIFY says of the link: by its token a later server shows that it may go on with it. */
void stream_identify(struct fields fields);
/* Adds the link to the next wait. */
void stream_prepare(void);
/* Reads what has arrived and calls the operations. Ends the program on a violation or a lost link. */
void stream_receive(void);
void stream_flush(void);
/* True from FREEZE to THAW: no operation may send or be served. */
bool stream_frozen(void);

/* How many bytes of DATA the stream may send now, at most DATA_LIMIT. */
size_t stream_room(const struct stream *stream);
/* Room for up to stream_room bytes of a DATA frame; sent by stream_commit, dropped by not calling it. */
uint8_t *stream_reserve(size_t size);
void stream_commit(struct stream *stream, enum channel channel, size_t size);
/* Sends as much of `data` as there is room for; returns how much. */
size_t stream_send(struct stream *stream, enum channel channel, const uint8_t *data, size_t size);
/* Says that nothing more comes on the channel; the stream stays open for input. */
void stream_end_output(struct stream *stream, enum channel channel);
/* Sends fields ahead of all output, on channel 0; far smaller than the first credit. */
void stream_report(struct stream *stream, const struct buffer *fields);
/* Says that `size` bytes of input are dealt with, so that the peer may send as many more. */
void stream_consumed(struct stream *stream, size_t size);

/* Each of these ends and frees the stream. `fields` may be NULL and stays the caller's. */
void stream_close(struct stream *stream, enum status status, const struct buffer *fields);
void stream_fail(struct stream *stream, int error, const char *doing, const char *object);
/* The fields of a FAILED. */
void stream_put_failure(struct buffer *fields, int error, const char *doing, const char *object);
void stream_refuse(struct stream *stream, enum status status, const char *message);

/* The value as a string ending in NUL, or NULL when it holds one inside. The caller frees it. */
char *field_copy_text(const struct field *field);
/* The path field resolved against /workspace, or NULL after answering INVALID. The caller frees it. */
char *stream_path(struct stream *stream, struct fields fields);
/* An integer field, 0 by default; false after answering INVALID. */
bool stream_uint(struct stream *stream, struct fields fields, enum tag tag, uint64_t *value);

#endif
