#define _GNU_SOURCE
#include "relay.h"

#include "listener.h"
#include "poller.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FORK_REPLY_LIMIT = 4096 };

static const int64_t CONNECT_DEADLINE_NS = 5000000000;

struct relay {
	struct relay *next;
	struct stream *stream;
	int socket, place;
	uint16_t port;
	bool connecting, tried_v6;
	struct listener *listener; /* while it waits for a program to connect there, else NULL */
	int64_t deadline_ns;       /* while connecting */
	struct buffer pending;     /* input that the socket has not taken; bounded by the stream's credit */
	bool input_shut;           /* the socket was told that no more input comes, or takes none */
	bool output_ended;         /* the socket has nothing more to say, and the server knows */
	struct buffer fork_reply;  /* what a forked child's copy of the program is told */
};

static struct relay *relays;
static struct relay *parting; /* forgotten in a fork, with a reply to write */

static void take_out(struct relay *relay)
{
	struct relay **link = &relays;
	while (*link != relay)
		link = &(*link)->next;
	*link = relay->next;
}

static void release(struct relay *relay)
{
	if (relay->socket >= 0)
		close(relay->socket);
	buffer_free(&relay->pending);
	buffer_free(&relay->fork_reply);
	free(relay);
}

static void free_relay(struct relay *relay)
{
	take_out(relay);
	release(relay);
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

static bool read_port(struct stream *stream, struct fields fields, uint16_t *port)
{
	uint64_t value;
	if (!stream_uint(stream, fields, TAG_PORT, &value))
		return false;
	if (value < 1 || value > UINT16_MAX) {
		stream_refuse(stream, STATUS_INVALID, "a port is from 1 to 65535");
		return false;
	}
	*port = (uint16_t)value;
	return true;
}

static struct relay *add_relay(struct stream *stream, uint16_t port)
{
	struct relay *relay = must_allocate(sizeof *relay);
	*relay = (struct relay){
		.next = relays,
		.stream = stream,
		.socket = -1,
		.place = NOT_POLLED,
		.port = port,
	};
	relays = relay;
	stream->owner = relay;
	return relay;
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
	uint16_t port;
	if (!read_port(stream, fields, &port))
		return;
	struct relay *relay = add_relay(stream, port);
	relay->connecting = true;
	relay->deadline_ns = clock_ns() + CONNECT_DEADLINE_NS;
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

/* ---- accepting ---- */

static void open_accept(struct stream *stream, struct fields fields)
{
	struct field field;
	struct listener *listener;
	uint16_t port = 0;
	int error;
	if (fields_find(fields, TAG_PORT, &field)) {
		if (!read_port(stream, fields, &port))
			return;
		listener = listener_of_port(port, &error);
	} else {
		listener = listener_of_self_service(&error);
	}
	if (listener)
		add_relay(stream, port)->listener = listener;
	else
		stream_fail(stream, error, "listen on", port ? "a port of the sandbox" : "the self-service socket");
}

/* Gives the stream a connection if one waits, and tells the server with one byte on the error channel. */
static void pump_accepting(struct relay *relay)
{
	static const uint8_t accepted = 0;
	if (stream_room(relay->stream) == 0)
		return;
	relay->socket = listener_accept(relay->listener);
	if (relay->socket < 0)
		return;
	relay->listener = NULL;
	stream_send(relay->stream, CHANNEL_ERROR, &accepted, sizeof accepted);
}

static void on_accept_control(struct stream *stream, uint8_t code, struct fields fields)
{
	struct relay *relay = stream->owner;
	struct field field;
	if (code != CONTROL_FORK_REPLY || !fields_find(fields, TAG_MESSAGE, &field) || field.length > FORK_REPLY_LIMIT)
		return;
	buffer_consume(&relay->fork_reply, buffer_size(&relay->fork_reply));
	buffer_append(&relay->fork_reply, field.value, field.length);
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
	if (relay->listener) {
		pump_accepting(relay);
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

static void on_forget_accept(struct stream *stream)
{
	struct relay *relay = stream->owner;
	if (buffer_size(&relay->fork_reply) == 0) {
		free_relay(relay);
		return;
	}
	take_out(relay);
	relay->next = parting;
	parting = relay;
}

const struct operation accept_operation = {
	.open = open_accept,
	.input = on_input,
	.control = on_accept_control,
	.cancel = on_cancel,
	.forget = on_forget_accept,
	.abandon = on_forget,
};

void relay_part(void)
{
	while (parting) {
		struct relay *relay = parting;
		parting = relay->next;
		send(relay->socket, buffer_data(&relay->fork_reply), buffer_size(&relay->fork_reply), MSG_NOSIGNAL);
		release(relay);
	}
}

void relay_prepare(void)
{
	for (struct relay *relay = relays; relay; relay = relay->next) {
		short events = 0;
		if (relay->listener) {
			relay->listener->wanted |= stream_room(relay->stream) > 0;
		} else if (relay->connecting) {
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
	listener_prepare();
}

void relay_pump(void)
{
	struct relay *next;
	for (struct relay *relay = relays; relay; relay = next) {
		next = relay->next;
		pump(relay);
	}
}
