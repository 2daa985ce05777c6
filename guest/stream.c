#define _GNU_SOURCE
#include "stream.h"

#include "poller.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	READ_SIZE = 1 << 18,
	/* Enough to keep the link busy while the server takes the last batch. */
	QUEUE_FOR_DATA = 1 << 18,
	/* Answers are not held back by credit: past this, no further request is read. */
	QUEUE_LIMIT = 1 << 20,
	STREAM_LIMIT = 256,
	/* Credit goes back in portions: fewer frames, and the peer still has most of it. */
	CREDIT_PORTION = INITIAL_CREDIT / 4,
	NONCE_SIZE = 32,
};

static struct buffer incoming, outgoing;
static struct stream *streams;
static size_t stream_count;
static bool frozen;
static int read_place, write_place;

static const char *build;
static struct secret {
	uint8_t *value;
	size_t size;
} token;                 /* what a new server of this sandbox knows; empty before the first IDENTIFY */
static char *sandbox_id; /* of the last IDENTIFY, or NULL */

_Noreturn static void give_up(const char *reason)
{
	fprintf(stderr, "mitos agent: the link broke: %s\n", reason);
	exit(1);
}

static void send_frame(enum frame_type type, uint32_t id, uint8_t channel, const void *payload, size_t length)
{
	frame_header(buffer_reserve(&outgoing, HEADER_SIZE), type, id, channel, (uint32_t)length);
	buffer_commit(&outgoing, HEADER_SIZE);
	buffer_append(&outgoing, payload, length);
}

static void send_hello(void)
{
	struct buffer fields = {0};
	field_put_uint(&fields, TAG_VERSION, LINK_VERSION);
	field_put_text(&fields, TAG_BUILD, build);
	if (sandbox_id)
		field_put_text(&fields, TAG_SANDBOX_ID, sandbox_id);
	send_frame(FRAME_HELLO, 0, 0, buffer_data(&fields), buffer_size(&fields));
	buffer_free(&fields);
}

void stream_start(const char *own_build)
{
	build = own_build;
	send_hello();
}

void stream_identify(struct fields fields)
{
	struct field field;
	if (fields_find(fields, TAG_TOKEN, &field)) {
		if (token.value)
			explicit_bzero(token.value, token.size);
		free(token.value);
		token = (struct secret){(uint8_t *)must_copy(field.value, field.length), field.length};
	}
	if (fields_find(fields, TAG_SANDBOX_ID, &field)) {
		free(sandbox_id);
		sandbox_id = must_copy(field.value, field.length);
	}
}

void stream_prepare(void)
{
	read_place = write_place = NOT_POLLED;
	if (buffer_size(&outgoing) < QUEUE_LIMIT)
		read_place = poller_add(STDIN_FILENO, POLLIN);
	if (buffer_size(&outgoing) > 0)
		write_place = poller_add(STDOUT_FILENO, POLLOUT);
}

void stream_flush(void)
{
	while (buffer_size(&outgoing) > 0) {
		ssize_t sent = write(STDOUT_FILENO, buffer_data(&outgoing), buffer_size(&outgoing));
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0)
			give_up(strerror(errno));
		buffer_consume(&outgoing, (size_t)sent);
	}
}

bool stream_frozen(void)
{
	return frozen;
}

/* ---- what arrives ---- */

static struct stream *find_stream(uint32_t id)
{
	struct stream *stream = streams;
	while (stream && stream->id != id)
		stream = stream->next;
	return stream;
}

static bool is_forked_identity(const struct frame *frame)
{
	uint64_t forked;
	struct fields fields = {frame->payload, frame->payload + frame->length};
	return frame->type == FRAME_OPEN && frame->channel == OPERATION_IDENTIFY &&
	       fields_valid(fields) && fields_uint(fields, TAG_FORKED, 0, &forked) && forked == 1;
}

static void freeze(void)
{
	frozen = true;
	clock_hold();
}

static void thaw(void)
{
	frozen = false;
	clock_release();
}

/* All streams go without a word: this is a forked child now, or `abandoned`, by a server that is no more. */
static void forget_all(bool abandoned)
{
	struct stream *stream = streams;
	streams = NULL;
	stream_count = 0;
	thaw();
	while (stream) {
		struct stream *next = stream->next;
		const struct operation *operation = stream->operation;
		if (abandoned && operation->abandon)
			operation->abandon(stream);
		else if (operation->forget)
			operation->forget(stream);
		free(stream);
		stream = next;
	}
}

static void on_open(const struct frame *frame)
{
	if (frame->stream % 2 == 0)
		give_up("the server opened a stream with an even id");
	if (is_forked_identity(frame))
		forget_all(false);
	if (find_stream(frame->stream))
		give_up("the server opened a stream that is open");
	struct stream *stream = must_allocate(sizeof *stream);
	*stream = (struct stream){
		.next = streams,
		.id = frame->stream,
		.send_credit = INITIAL_CREDIT,
		.receive_credit = INITIAL_CREDIT,
	};
	streams = stream;
	stream_count++;
	struct fields fields = {frame->payload, frame->payload + frame->length};
	if (frame->channel < operation_count)
		stream->operation = operations[frame->channel];
	if (!stream->operation)
		stream_refuse(stream, STATUS_INVALID, "unknown operation");
	else if (!fields_valid(fields))
		stream_refuse(stream, STATUS_INVALID, "a field runs past the payload");
	else if (stream_count > STREAM_LIMIT)
		stream_refuse(stream, STATUS_UNAVAILABLE, "too many streams are open");
	else
		stream->operation->open(stream, fields);
}

static void on_data(struct stream *stream, const struct frame *frame)
{
	if (frame->channel != CHANNEL_INPUT)
		give_up("data on a channel that is not the input");
	if (stream->input_ended)
		give_up("data after the end of the input");
	if (frame->length > stream->receive_credit)
		give_up("data beyond the credit");
	stream->receive_credit -= frame->length;
	if (stream->operation->input)
		stream->operation->input(stream, frame->payload, frame->length);
	else
		stream_consumed(stream, frame->length);
}

static void on_eof(struct stream *stream, const struct frame *frame)
{
	if (frame->channel != CHANNEL_INPUT || stream->input_ended)
		give_up("an end of input that cannot be");
	stream->input_ended = true;
	if (stream->operation->input_end)
		stream->operation->input_end(stream);
}

static void on_control(struct stream *stream, const struct frame *frame)
{
	struct fields fields = {frame->payload, frame->payload + frame->length};
	if (!fields_valid(fields))
		give_up("a field runs past the payload");
	if (stream->operation->control)
		stream->operation->control(stream, frame->channel, fields);
}

/* Frames for a stream that is not open crossed with its CLOSE and are ignored. */
static void on_stream_frame(const struct frame *frame)
{
	if (frame->stream % 2 == 0)
		give_up("a frame for a stream that nobody opened");
	struct stream *stream = find_stream(frame->stream);
	if (!stream)
		return;
	if (frame->type == FRAME_DATA)
		on_data(stream, frame);
	else if (frame->type == FRAME_EOF)
		on_eof(stream, frame);
	else if (frame->type == FRAME_CREDIT)
		stream->send_credit += load_u32(frame->payload);
	else if (frame->type == FRAME_CONTROL)
		on_control(stream, frame);
	else if (stream->operation->cancel)
		stream->operation->cancel(stream);
	else
		stream_close(stream, STATUS_CANCELED, NULL);
}

static void on_frame(const struct frame *frame)
{
	if (frozen && frame->type != FRAME_THAW && !is_forked_identity(frame))
		give_up("a frame while frozen");
	switch (frame->type) {
	case FRAME_OPEN:
		on_open(frame);
		break;
	case FRAME_DATA:
	case FRAME_EOF:
	case FRAME_CREDIT:
	case FRAME_CONTROL:
	case FRAME_CANCEL:
		on_stream_frame(frame);
		break;
	case FRAME_FREEZE:
		send_frame(FRAME_FROZEN, 0, 0, frame->payload, frame->length);
		freeze();
		break;
	case FRAME_THAW:
		thaw();
		break;
	case FRAME_PING:
		send_frame(FRAME_PONG, 0, 0, frame->payload, frame->length);
		break;
	default:
		give_up("a frame that only the agent sends");
	}
}

static void decode_incoming(void)
{
	struct frame frame;
	const char *reason;
	for (;;) {
		switch (frame_decode(buffer_data(&incoming), buffer_size(&incoming), &frame, &reason)) {
		case DECODE_MORE:
			return;
		case DECODE_VIOLATION:
			give_up(reason);
		case DECODE_FRAME:
			on_frame(&frame);
			buffer_consume(&incoming, HEADER_SIZE + frame.length);
		}
	}
}

/* A new server's first word, the token and a nonce, in one piece, or NULL. It is written when all before was read, and
 * nothing behind it before it was answered. A machine that was snapshotted while it stood still is the exception: what
 * lay in its pipe then is in the sandbox's kernel, which gives it together with what lies in the pipe now. */
static const uint8_t *find_first_word(const uint8_t *data, size_t size)
{
	size_t word = token.size + NONCE_SIZE;
	if (token.size == 0 || size < word)
		return NULL;
	if (memcmp(data, token.value, token.size) == 0)
		return data;
	const uint8_t *last = data + size - word;
	return memcmp(last, token.value, token.size) == 0 ? last : NULL;
}

/* Goes on with a new server. What an earlier one has half said is void, and so is what it was half told: the nonce
 * shows the new one where frames begin again. */
static void start_over(const uint8_t *data, size_t size)
{
	size_t word = token.size + NONCE_SIZE;
	struct buffer rest = {0};
	buffer_free(&outgoing);
	forget_all(true);
	buffer_append(&outgoing, data + token.size, NONCE_SIZE);
	send_hello();
	buffer_append(&rest, data + word, size - word);
	buffer_free(&incoming);
	incoming = rest;
}

/* Takes in what was read to where `incoming` has reserved room. */
static void take_in(const uint8_t *data, size_t size)
{
	const uint8_t *word = find_first_word(data, size);
	if (word)
		start_over(word, (size_t)(data + size - word));
	else
		buffer_commit(&incoming, size);
	decode_incoming();
}

void stream_receive(void)
{
	if (!poller_ready(read_place))
		return;
	uint8_t *data = buffer_reserve(&incoming, READ_SIZE);
	ssize_t got = read(STDIN_FILENO, data, READ_SIZE);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0)
		give_up(got == 0 ? "the server is gone" : strerror(errno));
	take_in(data, (size_t)got);
}

/* ---- what is sent ---- */

size_t stream_room(const struct stream *stream)
{
	if (frozen || buffer_size(&outgoing) >= QUEUE_FOR_DATA)
		return 0;
	return stream->send_credit < DATA_LIMIT ? (size_t)stream->send_credit : DATA_LIMIT;
}

uint8_t *stream_reserve(size_t size)
{
	return buffer_reserve(&outgoing, HEADER_SIZE + size) + HEADER_SIZE;
}

void stream_commit(struct stream *stream, enum channel channel, size_t size)
{
	uint8_t *header = buffer_reserve(&outgoing, HEADER_SIZE + size);
	frame_header(header, FRAME_DATA, stream->id, (uint8_t)channel, (uint32_t)size);
	buffer_commit(&outgoing, HEADER_SIZE + size);
	stream->send_credit -= size;
}

size_t stream_send(struct stream *stream, enum channel channel, const uint8_t *data, size_t size)
{
	size_t sent = 0, room;
	while (sent < size && (room = stream_room(stream)) > 0) {
		size_t part = size - sent < room ? size - sent : room;
		send_frame(FRAME_DATA, stream->id, (uint8_t)channel, data + sent, part);
		stream->send_credit -= part;
		sent += part;
	}
	return sent;
}

void stream_end_output(struct stream *stream, enum channel channel)
{
	send_frame(FRAME_EOF, stream->id, (uint8_t)channel, NULL, 0);
}

void stream_report(struct stream *stream, const struct buffer *fields)
{
	send_frame(FRAME_DATA, stream->id, CHANNEL_INPUT, buffer_data(fields), buffer_size(fields));
	stream->send_credit -= buffer_size(fields);
}

void stream_consumed(struct stream *stream, size_t size)
{
	stream->consumed += (uint32_t)size;
	if (stream->consumed < CREDIT_PORTION || stream->input_ended)
		return;
	uint8_t payload[4];
	store_u32(payload, stream->consumed);
	send_frame(FRAME_CREDIT, stream->id, 0, payload, sizeof payload);
	stream->receive_credit += stream->consumed;
	stream->consumed = 0;
}

void stream_close(struct stream *stream, enum status status, const struct buffer *fields)
{
	struct stream **link = &streams;
	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	stream_count--;
	send_frame(FRAME_CLOSE, stream->id, (uint8_t)status, fields ? buffer_data(fields) : NULL,
		   fields ? buffer_size(fields) : 0);
	free(stream);
}

void stream_put_failure(struct buffer *fields, int error, const char *doing, const char *object)
{
	char message[512];
	snprintf(message, sizeof message, "cannot %s %.300s: %s", doing, object, strerror(error));
	field_put_uint(fields, TAG_ERRNO, (uint64_t)error);
	field_put_text(fields, TAG_MESSAGE, message);
}

void stream_fail(struct stream *stream, int error, const char *doing, const char *object)
{
	struct buffer fields = {0};
	stream_put_failure(&fields, error, doing, object);
	stream_close(stream, STATUS_FAILED, &fields);
	buffer_free(&fields);
}

void stream_refuse(struct stream *stream, enum status status, const char *message)
{
	struct buffer fields = {0};
	field_put_text(&fields, TAG_MESSAGE, message);
	stream_close(stream, status, &fields);
	buffer_free(&fields);
}

/* ---- reading requests ---- */

char *field_copy_text(const struct field *field)
{
	if (field->length > 0 && memchr(field->value, 0, field->length))
		return NULL;
	return must_copy(field->value, field->length);
}

char *stream_path(struct stream *stream, struct fields fields)
{
	struct field field;
	if (!fields_find(fields, TAG_PATH, &field) || field.length == 0 ||
	    memchr(field.value, 0, field.length)) {
		stream_refuse(stream, STATUS_INVALID, "the path is missing, empty or holds a NUL byte");
		return NULL;
	}
	if (field.value[0] == '/')
		return must_copy(field.value, field.length);
	struct buffer path = {0};
	buffer_append(&path, "/workspace/", 11);
	buffer_append(&path, field.value, field.length);
	buffer_append(&path, "", 1);
	return (char *)path.storage;
}

bool stream_uint(struct stream *stream, struct fields fields, enum tag tag, uint64_t *value)
{
	if (fields_uint(fields, tag, 0, value))
		return true;
	stream_refuse(stream, STATUS_INVALID, "an integer field is not 8 bytes long");
	return false;
}
