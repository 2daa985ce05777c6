/* What a code kernel says, message.c: cut in any way it is the same, and what is passed on is whole messages. The first
 * byte says how the rest is cut. */
#include "message.h"

#include "link.h"

#include <stdlib.h>
#include <string.h>

/* Takes all of it in slices of at most `most` bytes; false when a header was refused. */
static bool take(const uint8_t *data, size_t size, size_t most, struct buffer *relayed)
{
	struct message message = {0};
	size_t at = 0;
	while (at < size) {
		bool complete;
		size_t slice = size - at < most ? size - at : most;
		uint8_t *exact = malloc(slice); /* reading past its end is seen */
		memcpy(exact, data + at, slice);
		size_t part = message_take(&message, exact, slice, relayed, &complete);
		free(exact);
		if (part == 0)
			return false;
		if (part > slice || complete != message_none(&message))
			abort();
		at += part;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	struct buffer whole = {0}, cut = {0};
	bool valid = take(data + 1, size - 1, size, &whole);
	if (valid != take(data + 1, size - 1, data[0] % 16 + 1, &cut))
		abort();
	if (buffer_size(&whole) != buffer_size(&cut) ||
	    (buffer_size(&whole) && memcmp(buffer_data(&whole), buffer_data(&cut), buffer_size(&whole)) != 0))
		abort();
	buffer_free(&whole);
	buffer_free(&cut);
	return 0;
}
