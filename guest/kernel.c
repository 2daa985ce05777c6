#define _GNU_SOURCE
#include "kernel.h"

#include "environment.h"
#include "poller.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KERNEL_DIRECTORY "/opt/mitos/kernels/"

enum { NOT_FOUND_STATUS = 127, READY_INTERRUPTS_GROUP = 1 };

static const int64_t SECOND_NS = 1000000000;
static const int64_t INTERRUPT_GRACE_NS = 3 * SECOND_NS;
/* A kernel that has not begun the cell drops an interrupt: one so soon after the cell is repeated. */
static const int64_t BEGIN_LIMIT_NS = SECOND_NS;
static const int64_t REPEAT_NS = SECOND_NS / 4;
static const int64_t START_LIMIT_NS = 60 * SECOND_NS;

static struct kernel *kernels;

/* ---- the kernel's process ---- */

static char *program_path(const char *language)
{
	char *path = must_allocate(sizeof KERNEL_DIRECTORY + strlen(language));
	strcpy(path, KERNEL_DIRECTORY);
	return strcat(path, language);
}

static bool is_program(const char *path)
{
	struct stat status;
	return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

struct kernel *kernel_find(const char *language)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next)
		if (strcmp(kernel->language, language) == 0)
			return kernel;
	char *path = program_path(language);
	bool exists = is_program(path);
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
		.capture = CAPTURE_CLOSED,
	};
	kernels = kernel;
	return kernel;
}

/* Makes the child's descriptors 0 to 3: no input, captured output, and the socket, whose other end stays here. */
static int open_descriptors(struct kernel *kernel, struct launch *launch)
{
	int ends[2], writers[CAPTURED];
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0)
		return errno;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		int error = errno;
		close(null);
		return error;
	}
	int error = capture_open(&kernel->capture, writers);
	if (error) {
		close(null);
		close(ends[0]);
		close(ends[1]);
		return error;
	}
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	kernel->socket = ends[0];
	launch->input = null;
	launch->output = writers[0];
	launch->error = writers[1];
	launch->extra = ends[1];
	return 0;
}

static int start_kernel(struct kernel *kernel)
{
	struct launch launch = {.directory = "/workspace"};
	int error = open_descriptors(kernel, &launch);
	if (error)
		return error;
	char *path = program_path(kernel->language);
	launch.argv = (char *[]){path, NULL};
	launch.environment = environment_make((struct fields){0}, NULL);
	kernel->process = process_start(&launch);
	kernel->ready_by = clock_ns() + START_LIMIT_NS;
	environment_free(launch.environment);
	free(path);
	return 0;
}

/* Forgets the process and kills what it left in its group. */
static void drop_kernel(struct kernel *kernel)
{
	if (process_id(kernel->process) > 0)
		kill(-process_id(kernel->process), SIGKILL);
	process_release(kernel->process);
	close(kernel->socket);
	capture_close(&kernel->capture);
	buffer_free(&kernel->outgoing);
	buffer_free(&kernel->held);
	kernel->process = NULL;
	kernel->socket = -1;
	kernel->ready = kernel->confirm = kernel->over = kernel->interrupts_group = false;
	kernel->message = (struct message){0};
}

/* Drops the kernel; the running cell says why, or else the next one does. */
static void lose_kernel(struct kernel *kernel, const char *name, const char *value)
{
	uint32_t missing = kernel->message.left;
	drop_kernel(kernel);
	if (kernel->running)
		cell_end_with(kernel->cells, name, value, missing);
	kernel->lost = !kernel->running || !cell_is_heard(kernel->cells);
}

static void remove_first_cell(struct kernel *kernel)
{
	struct cell *cell = kernel->cells;
	kernel->cells = cell->next;
	kernel->running = false;
	cell_free(cell);
}

static void refuse_first_cell(struct kernel *kernel, const char *reason)
{
	char message[256];
	struct cell *cell = kernel->cells;
	if (!cell)
		return;
	snprintf(message, sizeof message, "the kernel for %s could not be started: %s", kernel->language, reason);
	if (cell->stream)
		stream_refuse(cell->stream, STATUS_UNAVAILABLE, message);
	remove_first_cell(kernel);
}

static void on_failed_start(struct kernel *kernel)
{
	bool entering;
	int error = process_start_error(kernel->process, &entering), status = process_status(kernel->process);
	bool not_found = WIFEXITED(status) && WEXITSTATUS(status) == NOT_FOUND_STATUS;
	drop_kernel(kernel);
	refuse_first_cell(kernel, error       ? strerror(error)
				  : not_found ? "this sandbox has no interpreter for it"
					      : "it ended before it was ready");
}

static void on_kernel_end(struct kernel *kernel)
{
	if (!kernel->ready)
		on_failed_start(kernel);
	else
		lose_kernel(kernel, "KernelDied", "the kernel process ended while the cell ran; its state is lost");
}

/* ---- messages from the kernel ---- */

static struct stream *heard_stream(const struct kernel *kernel)
{
	return kernel->running && cell_is_heard(kernel->cells) ? kernel->cells->stream : NULL;
}

static void on_message(struct kernel *kernel)
{
	switch (message_kind(&kernel->message)) {
	case MESSAGE_READY:
		kernel->ready = true;
		kernel->interrupts_group = kernel->message.last_byte & READY_INTERRUPTS_GROUP;
		break;
	case MESSAGE_RESEEDED:
		kernel->confirm = false;
		break;
	case MESSAGE_DONE:
		if (!kernel->running)
			break;
		kernel->cells->exit_code = kernel->message.last_byte;
		kernel->cells->done = true;
		break;
	default:
		break;
	}
}

static void on_broken_message(struct kernel *kernel)
{
	uint8_t kind = message_kind(&kernel->message);
	bool too_large = kind >= MESSAGE_STDOUT && kind <= MESSAGE_ERROR;
	kernel->message.left = 0;
	if (too_large)
		lose_kernel(kernel, "KernelOutputTooLarge",
			    "one output of the cell is over 96 MiB; the kernel was ended and its state is lost");
	else
		lose_kernel(kernel, "KernelDied", "the kernel sent bytes that are no message; its state is lost");
}

static size_t reading_room(const struct kernel *kernel)
{
	const struct stream *stream = heard_stream(kernel);
	if (!stream)
		return DATA_LIMIT;
	/* Bytes of a header that is half read are relayed with its rest. */
	size_t room = stream_room(stream);
	size_t header_size = kernel->message.header_size;
	return room > header_size ? room - header_size : 0;
}

/* Handles what is held. Stops at the end of the cell: what follows belongs to no cell and is dropped. */
static void take_held(struct kernel *kernel)
{
	struct buffer relayed = {0};
	struct stream *stream = heard_stream(kernel);
	bool relaying = kernel->running, broken = false;
	size_t size = reading_room(kernel), at = 0;
	if (size > buffer_size(&kernel->held))
		size = buffer_size(&kernel->held);
	while (at < size && !broken) {
		struct buffer dropped = {0};
		const uint8_t *data = buffer_data(&kernel->held) + at;
		bool complete;
		size_t part = message_take(&kernel->message, data, size - at, relaying ? &relayed : &dropped,
					   &complete);
		buffer_free(&dropped);
		broken = part == 0;
		if (complete)
			on_message(kernel);
		at += part;
		relaying = relaying && !kernel->cells->done;
	}
	if (stream)
		stream_send(stream, CHANNEL_OUTPUT, buffer_data(&relayed), buffer_size(&relayed));
	buffer_free(&relayed);
	buffer_consume(&kernel->held, size);
	if (broken)
		on_broken_message(kernel);
}

static void receive(struct kernel *kernel)
{
	uint8_t data[DATA_LIMIT];
	ssize_t got = read(kernel->socket, data, sizeof data);
	if (got > 0)
		buffer_append(&kernel->held, data, (size_t)got);
	else if (got == 0 || errno != EAGAIN || process_ended(kernel->process))
		kernel->over = true;
	else
		return;
	capture_owe(&kernel->capture);
}

/* Before it is ready, its exit status says why it ended: that comes a moment after the socket's end. */
static bool has_ended(const struct kernel *kernel)
{
	return kernel->over && (kernel->ready || process_ended(kernel->process));
}

static bool is_waiting_for_close(const struct kernel *kernel)
{
	return kernel->running && kernel->cells->done;
}

/* A batch of messages goes on only after what was captured until it came: output before the DONE that ends it. */
static void pump_reading(struct kernel *kernel)
{
	if (is_waiting_for_close(kernel) || reading_room(kernel) == 0)
		return;
	if (buffer_size(&kernel->held) == 0 && !kernel->over)
		receive(kernel);
	if (message_none(&kernel->message) && !capture_relay(&kernel->capture, heard_stream(kernel)))
		return;
	if (buffer_size(&kernel->held) > 0)
		take_held(kernel);
	else if (has_ended(kernel))
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
	message_put(&kernel->outgoing, MESSAGE_CELL, buffer_data(&payload), buffer_size(&payload));
	buffer_free(&payload);
	buffer_free(&cell->code);
	cell->sent_at = clock_ns();
	if (cell->timeout_ms > 0)
		cell->interrupt_at = cell->sent_at + (int64_t)cell->timeout_ms * 1000000;
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
	struct fields rest = fields;
	struct field field;
	uint64_t forked;
	while (fields_next(&rest, &field) > 0)
		if (field.tag == TAG_ENV) {
			buffer_append(&variables, field.value, field.length);
			buffer_append(&variables, "", 1);
		}
	buffer_append(&reseed, entropy, RESEED_ENTROPY_SIZE);
	buffer_append(&reseed, generation, GENERATION_SIZE);
	buffer_append(&reseed, fields_uint(fields, TAG_FORKED, 0, &forked) && forked ? "\1" : "\0", 1);
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next) {
		if (!kernel->process)
			continue;
		if (buffer_size(&variables) > 0)
			message_put(&kernel->outgoing, MESSAGE_ENVIRONMENT, buffer_data(&variables),
				    buffer_size(&variables));
		message_put(&kernel->outgoing, MESSAGE_RESEED, buffer_data(&reseed), buffer_size(&reseed));
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

void kernel_interrupt(struct kernel *kernel)
{
	struct cell *cell = kernel->cells;
	int64_t now = clock_ns();
	cell->interrupt_at = now - cell->sent_at < BEGIN_LIMIT_NS ? now + REPEAT_NS : INT64_MAX;
	if (cell->kill_at == INT64_MAX)
		cell->kill_at = now + INTERRUPT_GRACE_NS;
	if (!kernel->process || process_id(kernel->process) == 0)
		return;
	pid_t id = process_id(kernel->process);
	kill(kernel->interrupts_group ? -id : id, SIGINT);
}

/* ---- the event loop's part ---- */

static void pump_deadlines(struct kernel *kernel)
{
	int64_t now = clock_ns();
	if (kernel->process && !kernel->ready && now >= kernel->ready_by) {
		drop_kernel(kernel);
		refuse_first_cell(kernel, strerror(ETIMEDOUT));
	}
	if (!kernel->running || kernel->cells->done)
		return;
	struct cell *cell = kernel->cells;
	if (now >= cell->interrupt_at) {
		kernel_interrupt(kernel);
	} else if (now >= cell->kill_at && reading_room(kernel) == 0) {
		/* Its DONE may be in the socket, behind what nobody takes. */
		cell->kill_at = now + INTERRUPT_GRACE_NS;
	} else if (now >= cell->kill_at) {
		lose_kernel(kernel, "TimeoutError",
			    "the cell did not stop at its deadline; the kernel was killed and its state is lost");
	}
}

static void pump_end(struct kernel *kernel)
{
	if (!is_waiting_for_close(kernel) || !cell_send_closing_events(kernel->cells))
		return;
	cell_close(kernel->cells);
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
	message_put(&message, MESSAGE_STDERR, restarted, sizeof restarted - 1);
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
			refuse_first_cell(kernel, strerror(error));
		return;
	}
	if (!can_start_cell(kernel))
		return;
	say_restarted(kernel);
	send_cell(kernel);
	pump_writing(kernel);
}

static bool has_work(const struct kernel *kernel)
{
	const struct cell *cell = kernel->cells;
	if (is_waiting_for_close(kernel))
		return !cell_is_heard(cell) || stream_room(cell->stream) > 0;
	if (cell && !kernel->running && (!kernel->process || can_start_cell(kernel)))
		return true;
	return kernel->process && (has_ended(kernel) || buffer_size(&kernel->held) > 0) &&
	       reading_room(kernel) > MESSAGE_HEADER_SIZE;
}

static void prepare_kernel(struct kernel *kernel)
{
	kernel->read_place = kernel->write_place = NOT_POLLED;
	kernel->capture.places[0] = kernel->capture.places[1] = NOT_POLLED;
	if (has_work(kernel))
		poller_wake_at(0);
	if (kernel->running && !kernel->cells->done) {
		poller_wake_at(kernel->cells->interrupt_at);
		poller_wake_at(kernel->cells->kill_at);
	}
	if (!kernel->process)
		return;
	if (!kernel->ready)
		poller_wake_at(kernel->ready_by);
	if (buffer_size(&kernel->outgoing) > 0)
		kernel->write_place = poller_add(kernel->socket, POLLOUT);
	if (is_waiting_for_close(kernel) || kernel->over || reading_room(kernel) == 0)
		return;
	kernel->read_place = poller_add(kernel->socket, POLLIN);
	if (message_none(&kernel->message))
		capture_prepare(&kernel->capture, heard_stream(kernel));
}

void kernel_prepare(void)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next)
		prepare_kernel(kernel);
}

static bool may_read(const struct kernel *kernel)
{
	return poller_ready(kernel->read_place) || capture_ready(&kernel->capture) || kernel->over ||
	       buffer_size(&kernel->held) > 0 || process_ended(kernel->process);
}

void kernel_pump(void)
{
	for (struct kernel *kernel = kernels; kernel; kernel = kernel->next) {
		if (kernel->process && poller_ready(kernel->write_place))
			pump_writing(kernel);
		if (kernel->process && may_read(kernel))
			pump_reading(kernel);
		pump_deadlines(kernel);
		pump_end(kernel);
		pump_queue(kernel);
	}
}
