#include "message.h"

#include "link.h"

#include <string.h>

enum { SIZE_LIMIT = 96 << 20 };

void message_put(struct buffer *out, uint8_t kind, const void *payload, size_t size)
{
	uint8_t header[MESSAGE_HEADER_SIZE];
	store_u32(header, (uint32_t)size);
	header[4] = kind;
	buffer_append(out, header, sizeof header);
	buffer_append(out, payload, size);
}

static bool is_relayed(const struct message *message)
{
	return message_kind(message) <= MESSAGE_DONE;
}

static bool header_valid(const struct message *message)
{
	switch (message_kind(message)) {
	case MESSAGE_READY:
		return message->left <= 1;
	case MESSAGE_RESEEDED:
		return message->left == 0;
	case MESSAGE_DONE:
		return message->left == 1;
	default:
		return message_kind(message) >= MESSAGE_STDOUT && message_kind(message) <= MESSAGE_ERROR &&
		       message->left <= SIZE_LIMIT;
	}
}

static size_t take_payload(struct message *message, const uint8_t *data, size_t size, struct buffer *relayed)
{
	size_t part = size < message->left ? size : message->left;
	if (is_relayed(message))
		buffer_append(relayed, data, part);
	message->left -= (uint32_t)part;
	message->last_byte = data[part - 1];
	return part;
}

/* Returns 0 when the header is whole and not valid. */
static size_t take_header(struct message *message, const uint8_t *data, size_t size, struct buffer *relayed)
{
	size_t part = MESSAGE_HEADER_SIZE - message->header_size;
	part = size < part ? size : part;
	memcpy(message->header + message->header_size, data, part);
	message->header_size += part;
	if (message->header_size < MESSAGE_HEADER_SIZE)
		return part;
	message->header_size = 0;
	message->left = load_u32(message->header);
	message->last_byte = 0;
	if (!header_valid(message))
		return 0;
	if (is_relayed(message))
		buffer_append(relayed, message->header, MESSAGE_HEADER_SIZE);
	return part;
}

size_t message_take(struct message *message, const uint8_t *data, size_t size, struct buffer *relayed, bool *complete)
{
	size_t part = message->left > 0 ? take_payload(message, data, size, relayed)
					: take_header(message, data, size, relayed);
	*complete = part > 0 && message_none(message);
	return part;
}
