#define _GNU_SOURCE
#include "command.h"

#include "input.h"
#include "poller.h"
#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	ENDED_LIMIT = 64, /* how many ended commands are remembered; the oldest go first */
	TITLE_LIMIT = 512,
};

/* How often a tree that is being killed, or a process that is not started yet, is looked at again. */
static const int64_t RETRY_NS = 5 * 1000 * 1000;

static struct command *commands;
static uint64_t ended_count;

/* ---- the table ---- */

static char *make_title(char **argv)
{
	struct buffer title = {0};
	for (; *argv && buffer_size(&title) < TITLE_LIMIT; argv++) {
		if (buffer_size(&title) > 0)
			buffer_append(&title, " ", 1);
		buffer_append(&title, *argv, strnlen(*argv, TITLE_LIMIT));
	}
	size_t size = buffer_size(&title);
	char *text = must_copy(buffer_data(&title), size < TITLE_LIMIT ? size : TITLE_LIMIT);
	buffer_free(&title);
	return text;
}

void command_start(struct command *command, const struct launch *launch, const char *id)
{
	command->id = id ? must_copy(id, strlen(id)) : NULL;
	command->title = make_title(launch->argv);
	command->name = must_copy(launch->argv[0], strlen(launch->argv[0]));
	command->directory = must_copy(launch->directory, strlen(launch->directory));
	command->process = process_start(launch);
	command->next = commands;
	commands = command;
}

struct command *command_find(const char *id)
{
	for (struct command *command = commands; command; command = command->next)
		if (command->id && strcmp(command->id, id) == 0)
			return command;
	return NULL;
}

void command_each(void (*visit)(const struct command *command, void *context), void *context)
{
	for (const struct command *command = commands; command; command = command->next)
		if (command->id)
			visit(command, context);
}

static void free_command(struct command *command)
{
	struct command **link = &commands;
	while (*link != command)
		link = &(*link)->next;
	*link = command->next;
	ring_free(&command->ring);
	buffer_free(&command->answer);
	free(command->id);
	free(command->title);
	free(command->name);
	free(command->directory);
	free(command);
}

/* The ended command without a reader that ended first, of those with output if `with_output`; or NULL. */
static struct command *oldest_ended(bool with_output)
{
	struct command *oldest = NULL;
	for (struct command *command = commands; command; command = command->next)
		if (command->ended && !command->stream && (!with_output || command->ring.held > 0) &&
		    (!oldest || command->ended_number < oldest->ended_number))
			oldest = command;
	return oldest;
}

static void forget_old_ends(void)
{
	size_t count = 0;
	for (const struct command *command = commands; command; command = command->next)
		count += command->ended;
	for (struct command *oldest; count > ENDED_LIMIT && (oldest = oldest_ended(false)); count--)
		free_command(oldest);
}

static struct command *largest(void)
{
	struct command *largest = commands;
	for (struct command *command = commands; command; command = command->next)
		if (command->ring.held > largest->ring.held)
			largest = command;
	return largest;
}

static void bound_output(void)
{
	while (ring_total() > RING_TOTAL_LIMIT) {
		struct command *victim = oldest_ended(true);
		ring_drop(victim ? &victim->ring : &largest()->ring);
	}
}

/* ---- the end ---- */

static void put_exit(const struct command *command, struct buffer *fields)
{
	int status = process_status(command->process);
	if (command->timed_out)
		field_put_uint(fields, TAG_TIMED_OUT, 1);
	else if (WIFSIGNALED(status))
		field_put_uint(fields, TAG_SIGNAL, (uint64_t)WTERMSIG(status));
	else
		field_put_uint(fields, TAG_EXIT_CODE, (uint64_t)WEXITSTATUS(status));
	field_put_uint(fields, TAG_DURATION, (uint64_t)(clock_ns() - command->started_ns));
}

static void note_end(struct command *command)
{
	bool entering;
	int error = process_start_error(command->process, &entering);
	command->ended = true;
	command->ended_number = ++ended_count;
	command->status = error ? STATUS_FAILED : STATUS_OK;
	if (error)
		stream_put_failure(&command->answer, error, entering ? "enter" : "run",
				   entering ? command->directory : command->name);
	else
		put_exit(command, &command->answer);
	close_descriptor(&command->input);
	for (int i = 0; i < OUTPUTS; i++)
		close_descriptor(&command->outputs[i]);
	buffer_free(&command->pending);
	process_release(command->process);
	command->process = NULL;
}

static void detach(struct command *command, enum status status, const char *message)
{
	struct stream *stream = command->stream;
	command->stream = command->feeder = NULL;
	if (message)
		stream_refuse(stream, status, message);
	else
		stream_close(stream, status, NULL);
}

/* Answers the reader once it has everything, and frees a command that nobody can ask for. */
static void settle(struct command *command)
{
	if (command->stream && command->canceled) {
		detach(command, STATUS_CANCELED, NULL);
	} else if (command->stream) {
		if (command->ring.cursor != command->ring.end)
			return;
		stream_close(command->stream, command->status, &command->answer);
		command->stream = command->feeder = NULL;
	}
	if (!command->keep)
		free_command(command);
}

void command_end(struct command *command)
{
	if (!command->ended) {
		command->killing = true;
		return;
	}
	if (command->stream)
		detach(command, STATUS_CANCELED, "the command was removed");
	free_command(command);
}

/* ---- the stream ---- */

static void keep(struct command *command)
{
	command->keep = true;
	command->ring.limit = RING_LIMIT;
}

uint64_t command_attach(struct command *command, struct stream *stream, uint64_t offset)
{
	if (command->stream)
		detach(command, STATUS_CANCELED, "another client reads the command now");
	command->feeder = NULL;
	keep(command);
	command->stream = stream;
	stream->owner = command;
	return ring_seek(&command->ring, offset);
}

static void send_signal(struct command *command)
{
	pid_t group = process_id(command->process);
	if (command->signal == 0 || (group == 0 && !process_ended(command->process)))
		return;
	if (command->terminal)
		process_signal_foreground(command->process, command->signal);
	else if (group > 1)
		kill(-group, command->signal);
	command->signal = 0;
}

void command_on_control(struct stream *stream, uint8_t code, struct fields fields)
{
	struct command *command = stream->owner;
	uint64_t cols, rows, number;
	if (code == CONTROL_RESIZE && command->terminal && command->input >= 0 &&
	    fields_uint(fields, TAG_COLS, 80, &cols) && fields_uint(fields, TAG_ROWS, 24, &rows) && terminal_resize(command->input, cols, rows))
		process_signal_foreground(command->process, SIGWINCH);
	if (code != CONTROL_SIGNAL || command->ended || !fields_uint(fields, TAG_SIGNAL, 0, &number) || number < 1 || number > 64)
		return;
	command->signal = (int)number;
	send_signal(command);
}

void command_on_cancel(struct stream *stream)
{
	struct command *command = stream->owner;
	if (command->keep)
		detach(command, STATUS_CANCELED, NULL);
	else
		command->canceled = command->killing = true;
}

void command_on_forget(struct stream *stream)
{
	struct command *command = stream->owner;
	command->stream = command->feeder = NULL;
	if (command->id)
		keep(command);
	else
		command->deadline_ns = INT64_MAX;
}

/* As after a broken connection: what is kept runs on, and nobody can find the rest again. */
void command_on_abandon(struct stream *stream)
{
	struct command *command = stream->owner;
	command->stream = command->feeder = NULL;
	if (!command->keep)
		command->canceled = command->killing = true;
}

/* ---- output ---- */

static bool wants_output(const struct command *command)
{
	if (!command->stream || command->canceled)
		return true;
	return command->ring.cursor == command->ring.end && stream_room(command->stream) > 0;
}

static void send_output(struct command *command)
{
	enum channel channel;
	const uint8_t *data;
	size_t size, sent;
	if (!command->stream || command->canceled)
		return;
	while ((size = ring_peek(&command->ring, &channel, &data)) > 0) {
		sent = stream_send(command->stream, channel, data, size);
		ring_advance(&command->ring, sent);
		if (sent < size)
			break;
	}
	if (ring_overrun(&command->ring)) {
		command->killing = command->killing || !command->keep;
		detach(command, STATUS_UNAVAILABLE, "output that was not read yet had to go: attach again");
	}
}

void command_say(struct command *command, enum channel channel, const uint8_t *data, size_t size)
{
	if (command->canceled || (!command->stream && !command->keep))
		return;
	ring_append(&command->ring, channel, data, size);
	if (!command->stream)
		ring_seek(&command->ring, command->ring.end);
	send_output(command);
	bound_output();
}

/* Reads one portion into the ring. */
static void pump_output(struct command *command, int output)
{
	static uint8_t portion[DATA_LIMIT];
	int *descriptor = &command->outputs[output];
	if (*descriptor < 0 || !wants_output(command))
		return;
	ssize_t got = read(*descriptor, portion, sizeof portion);
	if (got < 0 && (errno == EINTR || (errno == EAGAIN && !command->killed)))
		return;
	if (got <= 0) {
		close_descriptor(descriptor);
		return;
	}
	command_say(command, output == 0 ? CHANNEL_OUTPUT : CHANNEL_ERROR, portion, (size_t)got);
}

/* ---- the event loop's part ---- */

static void prepare_command(struct command *command)
{
	bool wanted = wants_output(command);
	command->input_place = NOT_POLLED;
	if (input_held(command))
		poller_wake_at(command->held_until_ns);
	else if (command->input >= 0 && buffer_size(&command->pending) > 0)
		command->input_place = poller_add(command->input, POLLOUT);
	for (int i = 0; i < OUTPUTS; i++) {
		command->output_places[i] = NOT_POLLED;
		if (command->outputs[i] >= 0 && wanted)
			command->output_places[i] = poller_add(command->outputs[i], POLLIN);
	}
	if (command->stream && command->ring.cursor != command->ring.end && stream_room(command->stream) > 0)
		poller_wake_at(0);
	if (command->ended)
		return;
	if ((command->killing && !command->killed) || command->signal)
		poller_wake_at(clock_ns() + RETRY_NS);
	else if (!command->killed)
		poller_wake_at(command->deadline_ns);
	else if (wanted)
		poller_wake_at(0);
}

void command_prepare(void)
{
	for (struct command *command = commands; command; command = command->next)
		prepare_command(command);
}

static void pump_kill(struct command *command)
{
	if (!command->killing && !command->killed && clock_ns() >= command->deadline_ns) {
		/* A command that ended in time is late only because its reader is, or because a process that it did
		 * not start holds its pipe. */
		command->killed = process_gone(command->process);
		command->timed_out = command->killing = !command->killed;
	}
	if (command->killing && !command->killed)
		command->killed = process_kill_tree(command->process) && process_ended(command->process);
}

static bool is_finished(const struct command *command)
{
	if (!process_ended(command->process))
		return false;
	if (command->canceled)
		return command->killed;
	return command->outputs[0] < 0 && command->outputs[1] < 0;
}

static void pump_running(struct command *command)
{
	pump_kill(command);
	send_signal(command);
	if (poller_ready(command->input_place))
		input_feed(command);
	for (int i = 0; i < OUTPUTS; i++)
		if (command->killed || poller_ready(command->output_places[i]))
			pump_output(command, i);
	if (is_finished(command))
		note_end(command);
}

static void pump_command(struct command *command)
{
	send_output(command);
	if (!command->ended)
		pump_running(command);
	if (command->ended && (command->stream || !command->keep))
		settle(command);
}

/* The first becomes the last, so that none is always first to take the link's room. */
static void rotate(void)
{
	struct command *first = commands, **last = &commands;
	if (!first || !first->next)
		return;
	while (*last)
		last = &(*last)->next;
	*last = first;
	commands = first->next;
	first->next = NULL;
}

void command_pump(void)
{
	for (struct command *command = commands, *next; command; command = next) {
		next = command->next;
		pump_command(command);
	}
	forget_old_ends();
	rotate();
}
