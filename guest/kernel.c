#define _GNU_SOURCE
#include "kernel.h"

#include "environment.h"
#include "poller.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KERNEL_DIRECTORY "/opt/mitos/kernels/"

enum {
	MESSAGE_HEADER_SIZE = 5,
	MESSAGE_LIMIT = 96 << 20,
	CODE_LIMIT = 32 << 20,
	LANGUAGE_LIMIT = 64,
};

enum to_kernel { SEND_CELL = 1, SEND_RESEED, SEND_ENVIRONMENT };
enum from_kernel { GOT_STDOUT = 1, GOT_STDERR, GOT_RESULT, GOT_ERROR, GOT_DONE, GOT_READY, GOT_RESEEDED };

static const int64_t SECOND_NS = 1000000000;
static const int64_t INTERRUPT_GRACE_NS = 3 * SECOND_NS;
static const int64_t START_LIMIT_NS = 60 * SECOND_NS;

struct cell {
	struct cell *next;
	struct kernel *kernel;
	struct stream *stream; /* NULL once forgotten: the events are then dropped */
	struct buffer code;
	size_t padding;           /* fills up a message that the kernel began and did not end */
	struct buffer last_words; /* the agent's own events, after which the cell is done */
	uint32_t timeout_ms;
	int64_t interrupt_at, kill_at;
	uint8_t exit_code;
	bool canceled, done;
};

struct kernel {
	struct kernel *next;
	char *language;
	struct process *process; /* NULL when it does not run */
	int socket, read_place, write_place;
	struct buffer outgoing;
	struct cell *cells; /* complete ones; the first runs when `running` */
	bool running, ready;
	bool lost;    /* it ended between cells and nobody was told yet */
	bool confirm; /* a RESEEDED is waited for */
	int64_t ready_by;
	/* The message being read. */
	uint8_t header[MESSAGE_HEADER_SIZE];
	size_t header_size;
	uint32_t left;
};

static struct kernel *kernels;

/* ---- cells ---- */

static void free_cell(struct cell *cell)
{
	buffer_free(&cell->code);
	buffer_free(&cell->last_words);
	free(cell);
}

static void remove_first_cell(struct kernel *kernel)
{
	struct cell *cell = kernel->cells;
	kernel->cells = cell->next;
	kernel->running = false;
	free_cell(cell);
}

static bool is_heard(const struct cell *cell)
{
	return cell->stream && !cell->canceled;
}

static void close_cell(struct cell *cell)
{
	if (!cell->stream)
		return;
	if (cell->canceled) {
		stream_close(cell->stream, STATUS_CANCELED, NULL);
		return;
	}
	struct buffer fields = {0};
	field_put_uint(&fields, TAG_EXIT_CODE, cell->exit_code);
	stream_close(cell->stream, STATUS_OK, &fields);
	buffer_free(&fields);
}

static void put_message(struct buffer *out, uint8_t kind, const void *payload, size_t size)
{
	uint8_t header[MESSAGE_HEADER_SIZE];
	store_u32(header, (uint32_t)size);
	header[4] = kind;
	buffer_append(out, header, sizeof header);
	buffer_append(out, payload, size);
}

/* Ends the running cell with an error of the agent's own. `value` must need no escape in JSON. */
static void end_cell_with(struct kernel *kernel, const char *name, const char *value)
{
	struct cell *cell = kernel->cells;
	char text[512];
	uint8_t failed = 1;
	cell->padding = kernel->left;
	kernel->left = 0;
	int size = snprintf(text, sizeof text, "{\"name\":\"%s\",\"value\":\"%s\",\"traceback\":[]}", name, value);
	put_message(&cell->last_words, GOT_ERROR, text, (size_t)size);
	put_message(&cell->last_words, GOT_DONE, &failed, 1);
	cell->exit_code = failed;
	cell->done = true;
}

/* ---- the kernel's process ---- */

static char *program_path(const char *language)
{
	char *path = must_allocate(sizeof KERNEL_DIRECTORY + strlen(language));
	strcpy(path, KERNEL_DIRECTORY);
	return strcat(path, language);
}

static int start_kernel(struct kernel *kernel)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return errno;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0) {
		int error = errno;
		close(ends[0]);
		close(ends[1]);
		return error;
	}
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	char *path = program_path(kernel->language);
	char **environment = environment_make((struct fields){0}, NULL);
	struct launch launch = {
		.argv = (char *[]){path, NULL},
		.environment = environment,
		.directory = "/workspace",
		.input = null,
		.output = null,
		.error = null,
		.extra = ends[1],
	};
	kernel->process = process_start(&launch);
	kernel->socket = ends[0];
	kernel->ready_by = clock_ns() + START_LIMIT_NS;
	environment_free(environment);
	free(path);
	return 0;
}

/* Forgets the process, and kills what it left in its group when it is told to. */
static void drop_kernel(struct kernel *kernel, bool with_group)
{
	if (with_group && process_id(kernel->process) > 0)
		kill(-process_id(kernel->process), SIGKILL);
	process_release(kernel->process);
	close(kernel->socket);
	buffer_free(&kernel->outgoing);
	kernel->process = NULL;
	kernel->socket = -1;
	kernel->ready = kernel->confirm = false;
	kernel->header_size = 0;
}

static void refuse_first_cell(struct kernel *kernel, int error)
{
	char message[256];
	struct cell *cell = kernel->cells;
	snprintf(message, sizeof message, "the kernel for %s could not be started: %s", kernel->language,
		 error ? strerror(error) : "it ended before it was ready");
	if (cell && cell->stream)
		stream_refuse(cell->stream, STATUS_UNAVAILABLE, message);
	if (cell)
		remove_first_cell(kernel);
}

static void on_kernel_end(struct kernel *kernel)
{
	bool entering, was_ready = kernel->ready;
	int error = process_start_error(kernel->process, &entering);
	drop_kernel(kernel, true);
	if (!was_ready)
		refuse_first_cell(kernel, error);
	else if (kernel->running)
		end_cell_with(kernel, "KernelDied", "the kernel process ended while the cell ran; its state is lost");
	else
		kernel->lost = true;
	kernel->left = 0;
}

/* ---- messages from the kernel ---- */

static bool header_valid(const struct kernel *kernel)
{
	uint8_t kind = kernel->header[4];
	if (kind == GOT_READY || kind == GOT_RESEEDED)
		return kernel->left == 0;
	if (kind == GOT_DONE)
		return kernel->left == 1;
	return kind >= GOT_STDOUT && kind <= GOT_ERROR && kernel->left <= MESSAGE_LIMIT;
}

static void on_message_start(struct kernel *kernel)
{
	if (kernel->header[4] == GOT_READY)
		kernel->ready = true;
	else if (kernel->header[4] == GOT_RESEEDED)
		kernel->confirm = false;
}

/* Takes one part of a message: a header or a slice of payload. Returns its size, 0 for a broken header. */
static size_t take_part(struct kernel *kernel, const uint8_t *data, size_t size, struct buffer *relayed)
{
	if (kernel->left > 0) {
		size_t part = size < kernel->left ? size : kernel->left;
		buffer_append(relayed, data, part);
		kernel->left -= (uint32_t)part;
		if (kernel->left == 0 && kernel->header[4] == GOT_DONE && kernel->running) {
			kernel->cells->exit_code = data[0];
			kernel->cells->done = true;
		}
		return part;
	}
	size_t part = MESSAGE_HEADER_SIZE - kernel->header_size;
	part = size < part ? size : part;
	memcpy(kernel->header + kernel->header_size, data, part);
	kernel->header_size += part;
	if (kernel->header_size < MESSAGE_HEADER_SIZE)
		return part;
	kernel->header_size = 0;
	kernel->left = load_u32(kernel->header);
	if (!header_valid(kernel))
		return 0;
	on_message_start(kernel);
	if (kernel->header[4] <= GOT_DONE)
		buffer_append(relayed, kernel->header, MESSAGE_HEADER_SIZE);
	return part;
}

static void on_broken_message(struct kernel *kernel)
{
	bool too_large = kernel->header[4] >= GOT_STDOUT && kernel->header[4] <= GOT_ERROR;
	kernel->left = 0;
	drop_kernel(kernel, true);
	if (!kernel->running)
		kernel->lost = true;
	else if (too_large)
		end_cell_with(kernel, "KernelOutputTooLarge",
			      "one output of the cell is over 96 MiB; the kernel was ended and its state is lost");
	else
		end_cell_with(kernel, "KernelDied", "the kernel sent bytes that are no message; its state is lost");
}

/* Handles what was read. Stops at the end of the cell: what follows belongs to no cell and is dropped. */
static void take_bytes(struct kernel *kernel, const uint8_t *data, size_t size)
{
	struct buffer relayed = {0};
	bool was_running = kernel->running, relaying = was_running, broken = false;
	size_t at = 0;
	while (at < size && !broken) {
		struct buffer dropped = {0};
		size_t part = take_part(kernel, data + at, size - at, relaying ? &relayed : &dropped);
		buffer_free(&dropped);
		broken = part == 0;
		at += part;
		relaying = relaying && !kernel->cells->done;
	}
	if (was_running && is_heard(kernel->cells))
		stream_send(kernel->cells->stream, CHANNEL_OUTPUT, buffer_data(&relayed), buffer_size(&relayed));
	buffer_free(&relayed);
	if (broken)
		on_broken_message(kernel);
}

static size_t reading_room(const struct kernel *kernel)
{
	if (!kernel->running || !is_heard(kernel->cells))
		return DATA_LIMIT;
	/* Bytes of a header that is half read are relayed with its rest. */
	size_t room = stream_room(kernel->cells->stream);
	return room > kernel->header_size ? room - kernel->header_size : 0;
}

static void pump_reading(struct kernel *kernel)
{
	uint8_t data[DATA_LIMIT];
	size_t room = reading_room(kernel);
	if (room == 0 || (kernel->running && kernel->cells->done))
		return;
	ssize_t got = read(kernel->socket, data, room);
	if (got > 0)
		take_bytes(kernel, data, (size_t)got);
	else if (got == 0 || errno != EAGAIN || process_ended(kernel->process))
		on_kernel_end(kernel);
}

/* ---- messages to the kernel ---- */

static void send_cell(struct kernel *kernel)
{
	struct cell *cell = kernel->cells;
	struct buffer payload = {0};
	uint8_t timeout[4];
	store_u32(timeout, cell->timeout_ms);
	buffer_append(&payload, timeout, sizeof timeout);
	buffer_append(&payload, buffer_data(&cell->code), buffer_size(&cell->code));
	put_message(&kernel->outgoing, SEND_CELL, buffer_data(&payload), buffer_size(&payload));
	buffer_free(&payload);
	buffer_free(&cell->code);
	if (cell->timeout_ms > 0)
		cell->interrupt_at = clock_ns() + (int64_t)cell->timeout_ms * 1000000;
	kernel->running = true;
}

static void pump_writing(struct kernel *kernel)
{
	while (buffer_size(&kernel->outgoing) > 0) {
		ssize_t sent = send(kernel->socket, buffer_data(&kernel->outgoing), buffer_size(&kernel->outgoing),
				    MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return; /* full, or broken: reading finds out */
		buffer_consume(&kernel->outgoing, (size_t)sent);
	}
}

void kernel_identify(const uint8_t *entropy, const uint8_t *generation, struct fields fields)
{
	struct buffer variables = {0}, reseed = {0};
	struct field field;
	while (fields_next(&fields, &field) > 0)
		if (field.tag == TAG_ENV) {
			buffer_append(&variables, field.value, field.length);
			buffer_append(&variables, "", 1);
		}
	buffer_append(&reseed, entropy, RESEED_ENTROPY_SIZE);
	buffer_append(&reseed, generation, GENERATION_SIZE);
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next) {
		if (!kernel->process)
			continue;
		if (buffer_size(&variables) > 0)
			put_message(&kernel->outgoing, SEND_ENVIRONMENT, buffer_data(&variables),
				    buffer_size(&variables));
		put_message(&kernel->outgoing, SEND_RESEED, buffer_data(&reseed), buffer_size(&reseed));
		kernel->confirm = kernel->ready && !kernel->running;
		pump_writing(kernel);
	}
	buffer_free(&variables);
	buffer_free(&reseed);
}

bool kernel_all_confirmed(void)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next)
		if (kernel->confirm)
			return false;
	return true;
}

/* ---- the operation ---- */

static bool language_valid(const char *language)
{
	size_t length = strspn(language, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
	return length > 0 && length <= LANGUAGE_LIMIT && language[length] == 0;
}

static struct kernel *find_kernel(const char *language)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next)
		if (strcmp(kernel->language, language) == 0)
			return kernel;
	char *path = program_path(language);
	bool exists = access(path, X_OK) == 0;
	free(path);
	if (!exists)
		return NULL;
	struct kernel *kernel = must_allocate(sizeof *kernel);
	*kernel = (struct kernel){
		.next = kernels,
		.language = must_copy(language, strlen(language)),
		.socket = -1,
		.read_place = NOT_POLLED,
		.write_place = NOT_POLLED,
	};
	kernels = kernel;
	return kernel;
}

static void on_open(struct stream *stream, struct fields fields)
{
	struct field field;
	uint64_t timeout_ms;
	if (!stream_uint(stream, fields, TAG_TIMEOUT, &timeout_ms))
		return;
	char *language = fields_find(fields, TAG_LANGUAGE, &field) ? field_copy_text(&field) : NULL;
	if (!language || !language_valid(language)) {
		free(language);
		stream_refuse(stream, STATUS_INVALID, "the language is missing or not letters, digits, _ and -");
		return;
	}
	struct kernel *kernel = find_kernel(language);
	free(language);
	if (!kernel) {
		stream_refuse(stream, STATUS_UNAVAILABLE, "this sandbox has no kernel for the language");
		return;
	}
	struct cell *cell = must_allocate(sizeof *cell);
	*cell = (struct cell){
		.kernel = kernel,
		.stream = stream,
		.timeout_ms = timeout_ms > UINT32_MAX ? 0 : (uint32_t)timeout_ms,
		.interrupt_at = INT64_MAX,
		.kill_at = INT64_MAX,
	};
	stream->owner = cell;
}

static void on_input(struct stream *stream, const uint8_t *data, size_t size)
{
	struct cell *cell = stream->owner;
	if (buffer_size(&cell->code) + size > CODE_LIMIT) {
		free_cell(cell);
		stream_refuse(stream, STATUS_INVALID, "the code is over 32 MiB");
		return;
	}
	buffer_append(&cell->code, data, size);
	stream_consumed(stream, size);
}

/* The code is complete: the cell takes its place in the queue. */
static void on_input_end(struct stream *stream)
{
	struct cell *cell = stream->owner, **last = &cell->kernel->cells;
	while (*last)
		last = &(*last)->next;
	*last = cell;
}

static bool is_running(const struct cell *cell)
{
	return cell->kernel->running && cell->kernel->cells == cell;
}

/* Drops a cell that does not run: one still being sent, or a queued one. */
static void drop_cell(struct cell *cell)
{
	struct cell **link = &cell->kernel->cells;
	while (*link && *link != cell)
		link = &(*link)->next;
	if (*link)
		*link = cell->next;
	free_cell(cell);
}

static void interrupt(struct cell *cell)
{
	cell->interrupt_at = INT64_MAX;
	cell->kill_at = clock_ns() + INTERRUPT_GRACE_NS;
	if (cell->kernel->process && process_id(cell->kernel->process) > 0)
		kill(process_id(cell->kernel->process), SIGINT);
}

static void on_cancel(struct stream *stream)
{
	struct cell *cell = stream->owner;
	if (!is_running(cell)) {
		drop_cell(cell);
		stream_close(stream, STATUS_CANCELED, NULL);
		return;
	}
	cell->canceled = true;
	interrupt(cell);
}

/* A complete cell still runs, in its turn; one that was still being sent goes. */
static void on_forget(struct stream *stream)
{
	struct cell *cell = stream->owner;
	if (!stream->input_ended) {
		drop_cell(cell);
		return;
	}
	cell->stream = NULL;
	cell->timeout_ms = 0;
	cell->interrupt_at = cell->kill_at = INT64_MAX;
}

const struct operation run_code_operation = {
	.open = on_open,
	.input = on_input,
	.input_end = on_input_end,
	.cancel = on_cancel,
	.forget = on_forget,
};

/* ---- the event loop's part ---- */

static void pump_deadlines(struct kernel *kernel)
{
	int64_t now = clock_ns();
	if (kernel->process && !kernel->ready && now >= kernel->ready_by) {
		drop_kernel(kernel, true);
		refuse_first_cell(kernel, ETIMEDOUT);
	}
	if (!kernel->running || kernel->cells->done)
		return;
	struct cell *cell = kernel->cells;
	if (now >= cell->interrupt_at) {
		interrupt(cell);
	} else if (now >= cell->kill_at && reading_room(kernel) == 0) {
		/* Its DONE may be in the socket, behind what nobody takes. */
		cell->kill_at = now + INTERRUPT_GRACE_NS;
	} else if (now >= cell->kill_at) {
		drop_kernel(kernel, true);
		end_cell_with(kernel, "TimeoutError",
			      "the cell did not stop at its deadline; the kernel was killed and its state is lost");
	}
}

static bool send_padding(struct cell *cell)
{
	static const uint8_t zeros[4096];
	while (cell->padding > 0) {
		size_t size = cell->padding < sizeof zeros ? cell->padding : sizeof zeros;
		size_t sent = stream_send(cell->stream, CHANNEL_OUTPUT, zeros, size);
		cell->padding -= sent;
		if (sent == 0)
			return false;
	}
	return true;
}

static void pump_last_words(struct kernel *kernel)
{
	struct cell *cell = kernel->cells;
	if (!kernel->running || !cell->done)
		return;
	if (is_heard(cell)) {
		if (!send_padding(cell))
			return;
		size_t sent = stream_send(cell->stream, CHANNEL_OUTPUT, buffer_data(&cell->last_words),
					  buffer_size(&cell->last_words));
		buffer_consume(&cell->last_words, sent);
		if (buffer_size(&cell->last_words) > 0)
			return;
	}
	close_cell(cell);
	remove_first_cell(kernel);
}

static const char restarted[] = "the kernel had ended and was restarted; its state is lost\n";

static bool can_start_cell(const struct kernel *kernel)
{
	const struct stream *stream = kernel->cells->stream;
	return kernel->ready &&
	       (!kernel->lost || !stream || stream_room(stream) >= MESSAGE_HEADER_SIZE + sizeof restarted);
}

static void say_restarted(struct kernel *kernel)
{
	struct buffer message = {0};
	if (!kernel->lost || !kernel->cells->stream)
		return;
	put_message(&message, GOT_STDERR, restarted, sizeof restarted - 1);
	stream_send(kernel->cells->stream, CHANNEL_OUTPUT, buffer_data(&message), buffer_size(&message));
	buffer_free(&message);
	kernel->lost = false;
}

static void pump_queue(struct kernel *kernel)
{
	if (!kernel->cells || kernel->running)
		return;
	if (!kernel->process) {
		int error = start_kernel(kernel);
		if (error)
			refuse_first_cell(kernel, error);
		return;
	}
	if (!can_start_cell(kernel))
		return;
	say_restarted(kernel);
	send_cell(kernel);
	pump_writing(kernel);
}

static void prepare_kernel(struct kernel *kernel)
{
	kernel->read_place = kernel->write_place = NOT_POLLED;
	const struct cell *cell = kernel->cells;
	if (kernel->running && cell->done && (!is_heard(cell) || stream_room(cell->stream) > 0))
		poller_wake_at(0);
	if (cell && !kernel->running && (!kernel->process || can_start_cell(kernel)))
		poller_wake_at(0);
	if (kernel->running && !cell->done) {
		poller_wake_at(cell->interrupt_at);
		poller_wake_at(cell->kill_at);
	}
	if (!kernel->process)
		return;
	if (!kernel->ready)
		poller_wake_at(kernel->ready_by);
	if (reading_room(kernel) > 0 && !(kernel->running && cell->done))
		kernel->read_place = poller_add(kernel->socket, POLLIN);
	if (buffer_size(&kernel->outgoing) > 0)
		kernel->write_place = poller_add(kernel->socket, POLLOUT);
}

void kernel_prepare(void)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next)
		prepare_kernel(kernel);
}

void kernel_pump(void)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next) {
		if (kernel->process && poller_ready(kernel->write_place))
			pump_writing(kernel);
		if (kernel->process && (poller_ready(kernel->read_place) || process_ended(kernel->process)))
			pump_reading(kernel);
		pump_deadlines(kernel);
		pump_last_words(kernel);
		pump_queue(kernel);
	}
}
