#define _GNU_SOURCE
#include "capture.h"

#include "message.h"
#include "poller.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

enum { PIPE_SIZE = 64 << 10 };

int capture_open(struct capture *capture, int writers[CAPTURED])
{
	*capture = CAPTURE_CLOSED;
	for (int i = 0; i < CAPTURED; i++) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC) < 0) {
			int error = errno;
			for (int made = 0; made < i; made++)
				close(writers[made]);
			capture_close(capture);
			return error;
		}
		fcntl(ends[0], F_SETFL, O_NONBLOCK);
		capture->pipes[i] = ends[0];
		writers[i] = ends[1];
	}
	return 0;
}

static void close_pipe(struct capture *capture, int i)
{
	if (capture->pipes[i] >= 0)
		close(capture->pipes[i]);
	capture->pipes[i] = -1;
	capture->owed[i] = 0;
}

void capture_close(struct capture *capture)
{
	for (int i = 0; i < CAPTURED; i++)
		close_pipe(capture, i);
}

void capture_owe(struct capture *capture)
{
	for (int i = 0; i < CAPTURED; i++)
		capture->owed[i] = capture->pipes[i] >= 0 ? PIPE_SIZE : 0;
}

/* How much may be read now; 0 when the stream cannot take a message. */
static size_t portion(const struct stream *stream)
{
	size_t room = stream ? stream_room(stream) : DATA_LIMIT;
	return room > MESSAGE_HEADER_SIZE ? room - MESSAGE_HEADER_SIZE : 0;
}

static void send_message(struct stream *stream, uint8_t kind, const uint8_t *data, size_t size)
{
	struct buffer message = {0};
	message_put(&message, kind, data, size);
	stream_send(stream, CHANNEL_OUTPUT, buffer_data(&message), buffer_size(&message));
	buffer_free(&message);
}

static void relay_pipe(struct capture *capture, int i, struct stream *stream)
{
	uint8_t data[DATA_LIMIT];
	size_t size = portion(stream);
	if (size == 0 || capture->pipes[i] < 0)
		return;
	ssize_t got = read(capture->pipes[i], data, size);
	if (got > 0) {
		size_t taken = (size_t)got;
		capture->owed[i] -= taken < capture->owed[i] ? taken : capture->owed[i];
		if (stream)
			send_message(stream, i == 0 ? MESSAGE_STDOUT : MESSAGE_STDERR, data, taken);
	} else if (got < 0 && errno == EAGAIN) {
		capture->owed[i] = 0;
	} else {
		close_pipe(capture, i);
	}
}

bool capture_relay(struct capture *capture, struct stream *stream)
{
	for (int i = 0; i < CAPTURED; i++)
		relay_pipe(capture, i, stream);
	return capture->owed[0] == 0 && capture->owed[1] == 0;
}

void capture_prepare(struct capture *capture, const struct stream *stream)
{
	bool wanted = portion(stream) > 0;
	for (int i = 0; i < CAPTURED; i++)
		capture->places[i] = wanted && capture->pipes[i] >= 0 ? poller_add(capture->pipes[i], POLLIN)
								       : NOT_POLLED;
}

bool capture_ready(const struct capture *capture)
{
	return poller_ready(capture->places[0]) || poller_ready(capture->places[1]);
}
