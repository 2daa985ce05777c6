#include "attach.h"

#include "command.h"
#include "poller.h"

#include <errno.h>
#include <stdlib.h>

/* So that a listing fits the payload of one frame. */
enum { LISTING_LIMIT = PAYLOAD_LIMIT - 4096 };

/* The command that the request names, or NULL after an answer. */
static struct command *named_command(struct stream *stream, struct fields fields)
{
	struct field field;
	char *id = fields_find(fields, TAG_COMMAND_ID, &field) ? field_copy_text(&field) : NULL;
	struct command *command = id ? command_find(id) : NULL;
	if (!id)
		stream_refuse(stream, STATUS_INVALID, "the command's id is missing or holds a NUL byte");
	else if (!command)
		stream_fail(stream, ESRCH, "find command", id);
	free(id);
	return command;
}

static void on_attach(struct stream *stream, struct fields fields)
{
	uint64_t offset;
	struct command *command = named_command(stream, fields);
	if (!command || !stream_uint(stream, fields, TAG_OFFSET, &offset))
		return;
	uint64_t lost = command_attach(command, stream, offset);
	struct buffer report = {0};
	field_put_uint(&report, TAG_OFFSET, command->ring.cursor);
	field_put_uint(&report, TAG_LOST, lost);
	stream_report(stream, &report);
	buffer_free(&report);
}

const struct operation attach_operation = {
	.open = on_attach,
	.control = command_on_control,
	.cancel = command_on_cancel,
	.forget = command_on_forget,
	.abandon = command_on_abandon,
};

static void put_command(const struct command *command, void *context)
{
	struct buffer *listing = context, entry = {0};
	field_put_text(&entry, TAG_COMMAND_ID, command->id);
	field_put_text(&entry, TAG_NAME, command->title);
	field_put_uint(&entry, TAG_KEEP, command->keep);
	field_put_uint(&entry, TAG_OFFSET, command->ring.start);
	field_put_uint(&entry, TAG_SIZE, command->ring.end);
	field_put_uint(&entry, TAG_ENDED, command->ended);
	if (command->ended) {
		buffer_append(&entry, buffer_data(&command->answer), buffer_size(&command->answer));
	} else {
		field_put_uint(&entry, TAG_PID, (uint64_t)process_id(command->process));
		field_put_uint(&entry, TAG_DURATION, (uint64_t)(clock_ns() - command->started_ns));
	}
	if (buffer_size(listing) + buffer_size(&entry) < LISTING_LIMIT)
		field_put(listing, TAG_COMMAND, buffer_data(&entry), buffer_size(&entry));
	buffer_free(&entry);
}

static void on_list(struct stream *stream, struct fields fields)
{
	struct buffer listing = {0};
	(void)fields;
	command_each(put_command, &listing);
	stream_close(stream, STATUS_OK, &listing);
	buffer_free(&listing);
}

const struct operation commands_operation = {.open = on_list};

static void on_end(struct stream *stream, struct fields fields)
{
	struct command *command = named_command(stream, fields);
	if (!command)
		return;
	command_end(command);
	stream_close(stream, STATUS_OK, NULL);
}

const struct operation end_command_operation = {.open = on_end};
