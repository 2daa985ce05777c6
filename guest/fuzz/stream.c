/* The streams on the link, stream.c, with operations that answer at once: whatever the peer sends, no stream is used
 * after its end, and each frame that is sent is one that the document allows.
 *
 * Requests are read as the real operations read them: exec_request.c, paths and numbers. The first byte says how the
 * rest arrives in slices. The token is one letter long, so that new servers come often. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf gave_up;
#define exit(code) longjmp(gave_up, code)
#define fprintf(stream, ...) ((void)snprintf(NULL, 0, __VA_ARGS__))
#include "../stream.c"
#undef exit
#undef fprintf

#include "exec_request.h"

static void open_exec(struct stream *stream, struct fields fields)
{
	struct exec_request request = {0};
	const char *fault = exec_request_read(fields, &request);
	exec_request_free(&request);
	if (fault)
		stream_refuse(stream, STATUS_INVALID, fault);
}

static void open_path(struct stream *stream, struct fields fields)
{
	uint64_t offset;
	char *path = stream_path(stream, fields);
	if (path && stream_uint(stream, fields, TAG_OFFSET, &offset))
		stream_fail(stream, ENOENT, "open", path);
	free(path);
}

static void open_echo(struct stream *stream, struct fields fields)
{
	struct buffer report = {0};
	field_put_uint(&report, TAG_SIZE, (uint64_t)(fields.end - fields.at));
	stream_report(stream, &report);
	buffer_free(&report);
}

static void echo(struct stream *stream, const uint8_t *data, size_t size)
{
	size_t room = stream_room(stream);
	if (room > 0 && data[0] % 2) {
		memset(stream_reserve(room), data[0], room);
		stream_commit(stream, CHANNEL_ERROR, room);
	}
	stream_send(stream, CHANNEL_OUTPUT, data, size);
	stream_consumed(stream, size);
}

static void echo_end(struct stream *stream)
{
	stream_end_output(stream, CHANNEL_OUTPUT);
	stream_close(stream, STATUS_OK, NULL);
}

static void control(struct stream *stream, uint8_t code, struct fields fields)
{
	struct field field;
	if (code == CONTROL_SIGNAL && fields_find(fields, TAG_SIGNAL, &field))
		stream_close(stream, STATUS_OK, NULL);
}

static const struct operation exec = {.open = open_exec, .control = control};
static const struct operation path = {.open = open_path};
static const struct operation echoing = {.open = open_echo, .input = echo, .input_end = echo_end};
static const struct operation silent = {.open = open_echo};
const struct operation *const operations[] = {
	[OPERATION_IDENTIFY] = &silent, [OPERATION_EXEC] = &exec,	[OPERATION_READ_FILE] = &path,
	[OPERATION_WRITE_FILE] = &echoing, [OPERATION_RUN_CODE] = &echoing, [OPERATION_DIAL] = &silent,
};
const size_t operation_count = sizeof operations / sizeof *operations;

/* The server's end: takes what was sent, behind the nonce if it is a new server. */
static void take_outgoing(bool is_new)
{
	struct frame frame;
	const char *reason;
	if (is_new)
		buffer_consume(&outgoing, NONCE_SIZE);
	while (buffer_size(&outgoing) > 0) {
		if (frame_decode(buffer_data(&outgoing), buffer_size(&outgoing), &frame, &reason) != DECODE_FRAME)
			abort();
		buffer_consume(&outgoing, HEADER_SIZE + frame.length);
	}
}

static void name(void)
{
	struct buffer fields = {0};
	field_put_text(&fields, TAG_TOKEN, "t");
	field_put_text(&fields, TAG_SANDBOX_ID, "sb");
	stream_identify((struct fields){buffer_data(&fields), buffer_data(&fields) + buffer_size(&fields)});
	buffer_free(&fields);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	volatile bool is_new = false;
	if (size == 0)
		return 0;
	if (setjmp(gave_up) == 0) {
		stream_start("fuzz");
		name();
		for (size_t at = 1, slice = data[0] + 1; at < size; at += slice) {
			size_t part = size - at < slice ? size - at : slice;
			uint8_t *room = buffer_reserve(&incoming, part);
			memcpy(room, data + at, part);
			is_new = is_new || find_first_word(room, part);
			take_in(room, part);
			if (stream_count > STREAM_LIMIT)
				abort();
		}
	}
	take_outgoing(is_new);
	forget_all(is_new);
	buffer_free(&incoming);
	buffer_free(&outgoing);
	return 0;
}
