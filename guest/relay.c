#define _GNU_SOURCE
#include "relay.h"

#include "poller.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const int64_t CONNECT_DEADLINE_NS = 5000000000;

struct relay {
	struct relay *next;
	struct stream *stream;
	int socket, place;
	uint16_t port;
	bool connecting, tried_v6;
	int64_t deadline_ns;       /* while connecting */
	struct buffer pending;     /* input that the socket has not taken; bounded by the stream's credit */
	bool input_shut;           /* the socket was told that no more input comes, or takes none */
	bool output_ended;         /* the socket has nothing more to say, and the server knows */
};

static struct relay *relays;

static void free_relay(struct relay *relay)
{
	struct relay **link = &relays;
	while (*link != relay)
		link = &(*link)->next;
	*link = relay->next;
	if (relay->socket >= 0)
		close(relay->socket);
	buffer_free(&relay->pending);
	free(relay);
}

static void close_relay(struct relay *relay)
{
	stream_close(relay->stream, STATUS_OK, NULL);
	free_relay(relay);
}

static void fail_relay(struct relay *relay, int error, const char *doing)
{
	stream_fail(relay->stream, error, doing, "a port of the sandbox");
	free_relay(relay);
}

/* ---- connecting ---- */

/* Begins to connect to the port on loopback; 0, or the errno of a refusal at once. */
static int start_connect(struct relay *relay, bool v6)
{
	struct sockaddr_in v4_address = {
		.sin_family = AF_INET,
		.sin_port = htons(relay->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct sockaddr_in6 v6_address = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(relay->port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	if (relay->socket >= 0)
		close(relay->socket);
	relay->tried_v6 = v6;
	relay->socket = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (relay->socket < 0)
		return errno;
	int on = 1;
	setsockopt(relay->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	int result = v6 ? connect(relay->socket, (struct sockaddr *)&v6_address, sizeof v6_address)
			: connect(relay->socket, (struct sockaddr *)&v4_address, sizeof v4_address);
	return result == 0 || errno == EINPROGRESS ? 0 : errno;
}

/* A server may listen on one of the two loopback addresses only. What the first says is the answer when both fail. */
static void retry_or_fail(struct relay *relay, int error)
{
	if (relay->tried_v6 || start_connect(relay, true) != 0)
		fail_relay(relay, error, "connect to");
}

static void open_dial(struct stream *stream, struct fields fields)
{
	uint64_t port;
	if (!stream_uint(stream, fields, TAG_PORT, &port))
		return;
	if (port < 1 || port > UINT16_MAX) {
		stream_refuse(stream, STATUS_INVALID, "a port is from 1 to 65535");
		return;
	}
	struct relay *relay = must_allocate(sizeof *relay);
	*relay = (struct relay){
		.next = relays,
		.stream = stream,
		.socket = -1,
		.place = NOT_POLLED,
		.port = (uint16_t)port,
		.connecting = true,
		.deadline_ns = clock_ns() + CONNECT_DEADLINE_NS,
	};
	relays = relay;
	stream->owner = relay;
	int error = start_connect(relay, false);
	if (error)
		retry_or_fail(relay, error);
}

static void pump_connecting(struct relay *relay)
{
	if (!poller_ready(relay->place)) {
		if (clock_ns() >= relay->deadline_ns)
			fail_relay(relay, ETIMEDOUT, "connect to");
		return;
	}
	int error = 0;
	socklen_t size = sizeof error;
	if (getsockopt(relay->socket, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error)
		retry_or_fail(relay, error);
	else
		relay->connecting = false;
}

/* ---- moving bytes ---- */

/* What the socket does not take any more is dropped: its owner has stopped reading, and may still have to say something. */
static void drop_input(struct relay *relay)
{
	size_t size = buffer_size(&relay->pending);
	buffer_consume(&relay->pending, size);
	stream_consumed(relay->stream, size);
	relay->input_shut = true;
}

static void push_input(struct relay *relay)
{
	while (buffer_size(&relay->pending) > 0) {
		ssize_t sent = send(relay->socket, buffer_data(&relay->pending), buffer_size(&relay->pending),
				    MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0) {
			drop_input(relay);
			return;
		}
		buffer_consume(&relay->pending, (size_t)sent);
		stream_consumed(relay->stream, (size_t)sent);
	}
	if (relay->stream->input_ended && !relay->input_shut) {
		shutdown(relay->socket, SHUT_WR);
		relay->input_shut = true;
	}
}

/* False when the relay is gone. */
static bool pull_output(struct relay *relay)
{
	size_t room;
	while (!relay->output_ended && (room = stream_room(relay->stream)) > 0) {
		ssize_t got = recv(relay->socket, stream_reserve(room), room, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return true;
		if (got < 0) {
			fail_relay(relay, errno, "read from");
			return false;
		}
		if (got > 0) {
			stream_commit(relay->stream, CHANNEL_OUTPUT, (size_t)got);
		} else {
			relay->output_ended = true;
			stream_end_output(relay->stream, CHANNEL_OUTPUT);
		}
	}
	return true;
}

static void pump(struct relay *relay)
{
	if (relay->connecting) {
		pump_connecting(relay);
		return;
	}
	push_input(relay);
	if (pull_output(relay) && relay->output_ended && relay->input_shut)
		close_relay(relay);
}

static void on_input(struct stream *stream, const uint8_t *data, size_t size)
{
	struct relay *relay = stream->owner;
	if (relay->input_shut)
		stream_consumed(stream, size);
	else
		buffer_append(&relay->pending, data, size);
}

static void on_cancel(struct stream *stream)
{
	struct relay *relay = stream->owner;
	stream_close(stream, STATUS_CANCELED, NULL);
	free_relay(relay);
}

static void on_forget(struct stream *stream)
{
	free_relay(stream->owner);
}

const struct operation dial_operation = {
	.open = open_dial,
	.input = on_input,
	.cancel = on_cancel,
	.forget = on_forget,
};

void relay_prepare(void)
{
	for (struct relay *relay = relays; relay; relay = relay->next) {
		short events = 0;
		if (relay->connecting) {
			events = POLLOUT;
			poller_wake_at(relay->deadline_ns);
		} else {
			if (buffer_size(&relay->pending) > 0)
				events |= POLLOUT;
			if (!relay->output_ended && stream_room(relay->stream) > 0)
				events |= POLLIN;
		}
		relay->place = events ? poller_add(relay->socket, events) : NOT_POLLED;
	}
}

void relay_pump(void)
{
	struct relay *next;
	for (struct relay *relay = relays; relay; relay = next) {
		next = relay->next;
		pump(relay);
	}
}
