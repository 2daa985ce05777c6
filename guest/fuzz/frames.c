/* The codec of the link, link.c: frames and fields are read within their bytes, and once read can be written. */
#include "link.h"

#include <stdlib.h>
#include <string.h>

static void read_fields(const uint8_t *bytes, size_t size)
{
	struct fields fields = {bytes, bytes + size}, rest = fields;
	struct buffer again = {0};
	struct field field;
	uint64_t value;
	int step;
	while ((step = fields_next(&rest, &field)) > 0)
		field_put(&again, field.tag, field.value, field.length);
	if ((step == 0) != fields_valid(fields))
		abort();
	if (step == 0 && (buffer_size(&again) != size || (size && memcmp(buffer_data(&again), bytes, size) != 0)))
		abort();
	for (unsigned tag = 0; tag < 80; tag++)
		if (!fields_uint(fields, tag, 7, &value) && !fields_find(fields, tag, &field))
			abort();
	buffer_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame frame;
	const char *reason;
	uint8_t header[HEADER_SIZE];
	read_fields(data, size);
	while (frame_decode(data, size, &frame, &reason) == DECODE_FRAME) {
		frame_header(header, frame.type, frame.stream, frame.channel, frame.length);
		if (memcmp(header, data, sizeof header) != 0)
			abort();
		read_fields(frame.payload, frame.length);
		data += HEADER_SIZE + frame.length;
		size -= HEADER_SIZE + frame.length;
	}
	return 0;
}
