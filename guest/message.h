/* The messages between the agent and a code kernel: section 5 of spec/guest-link.md. */
#ifndef MITOS_MESSAGE_H
#define MITOS_MESSAGE_H

#include "buffer.h"

#include <stdbool.h>

enum { MESSAGE_HEADER_SIZE = 5 }; /* length u32, kind u8 */

enum to_kernel { MESSAGE_CELL = 1, MESSAGE_RESEED, MESSAGE_ENVIRONMENT };
enum from_kernel {
	MESSAGE_STDOUT = 1,
	MESSAGE_STDERR,
	MESSAGE_RESULT,
	MESSAGE_ERROR,
	MESSAGE_DONE,
	MESSAGE_READY,
	MESSAGE_RESEEDED,
};

/* A message of a kernel that is being taken, part by part. */
struct message {
	uint8_t header[MESSAGE_HEADER_SIZE];
	size_t header_size; /* how much of the header is there */
	uint32_t left;      /* of the payload */
	uint8_t last_byte;  /* of the payload so far */
};

/* Appends a whole message. */
void message_put(struct buffer *out, uint8_t kind, const void *payload, size_t size);

static inline uint8_t message_kind(const struct message *message)
{
	return message->header[4];
}

/* True when no message is begun and not ended. */
static inline bool message_none(const struct message *message)
{
	return message->header_size == 0 && message->left == 0;
}

/* Takes one part: a header, or a slice of payload; what belongs to the running cell is appended to `relayed`. Returns
 * its size, or 0 for a header that no kernel may send. `*complete` says that the message ends with this part. */
size_t message_take(struct message *message, const uint8_t *data, size_t size, struct buffer *relayed, bool *complete);

#endif
