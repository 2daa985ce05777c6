#define _GNU_SOURCE
#include "input.h"

#include "poller.h"
#include "terminal.h"

#include <errno.h>
#include <unistd.h>

/* How long input may wait for a signal that was typed before it. */
static const int64_t HOLD_NS = 1000 * 1000 * 1000;

/* Takes no more input and tells the peer that it is dealt with. */
static void drop_input(struct command *command)
{
	close_descriptor(&command->input);
	if (command->feeder)
		stream_consumed(command->feeder, buffer_size(&command->pending));
	buffer_consume(&command->pending, buffer_size(&command->pending));
}

static void take_input(struct command *command, size_t size)
{
	buffer_consume(&command->pending, size);
	if (command->feeder)
		stream_consumed(command->feeder, size);
}

/* A typed Ctrl-C or the like: takes back the line, shows the character, and has the signal sent. */
static void interrupt(struct command *command, struct terminal_input input)
{
	const uint8_t shown[2] = {'^', *buffer_data(&command->pending) ^ 0x40};
	for (; input.erase && command->line_length > 0; command->line_length--)
		if (write(command->input, &input.erase, 1) != 1)
			break;
	if (input.echo)
		command_say(command, CHANNEL_OUTPUT, shown, sizeof shown);
	command->line_length = 0;
	process_signal_foreground(command->process, input.signal);
	command->held_until_ns = clock_ns() + HOLD_NS;
	take_input(command, 1);
}

bool input_held(const struct command *command)
{
	return command->terminal && !command->ended && process_is_signalling(command->process) &&
	       clock_ns() < command->held_until_ns;
}

/* Does what comes first in the input; false when it must wait, or cannot go on. */
static bool put_input(struct command *command)
{
	const uint8_t *data = buffer_data(&command->pending);
	size_t size = buffer_size(&command->pending);
	if (command->terminal) {
		struct terminal_input input = terminal_interpret(command->input, *data);
		if (input.signal) {
			interrupt(command, input);
			return true;
		}
	}
	ssize_t taken = command->terminal ? terminal_write(command->input, data, size)
					  : write(command->input, data, size);
	if (taken < 0 && errno == EINTR)
		return true;
	if (taken < 0 && errno != EAGAIN)
		drop_input(command);
	if (taken < 0)
		return false;
	if (command->terminal)
		command->line_length =
			terminal_line_length(command->input, command->line_length, data, (size_t)taken);
	take_input(command, (size_t)taken);
	return true;
}

void input_feed(struct command *command)
{
	while (command->input >= 0 && buffer_size(&command->pending) > 0 && !input_held(command))
		if (!put_input(command))
			return;
	if (command->input_ended && !command->terminal)
		close_descriptor(&command->input);
}
