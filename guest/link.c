#include "link.h"

#include <string.h>

uint32_t load_u32(const uint8_t *in)
{
	return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

uint64_t load_u64(const uint8_t *in)
{
	return (uint64_t)load_u32(in) << 32 | load_u32(in + 4);
}

void store_u32(uint8_t *out, uint32_t value)
{
	out[0] = (uint8_t)(value >> 24);
	out[1] = (uint8_t)(value >> 16);
	out[2] = (uint8_t)(value >> 8);
	out[3] = (uint8_t)value;
}

void store_u64(uint8_t *out, uint64_t value)
{
	store_u32(out, (uint32_t)(value >> 32));
	store_u32(out + 4, (uint32_t)value);
}

/* What the header of each type may say; the same table is in src/mitos/wire/link.py. */
static const struct shape {
	bool on_stream;
	uint8_t channel_first, channel_last;
	uint32_t length_first, length_last;
} shapes[] = {
	[FRAME_HELLO] = {false, 0, 0, 0, PAYLOAD_LIMIT},
	[FRAME_OPEN] = {true, 0, 255, 0, PAYLOAD_LIMIT},
	[FRAME_DATA] = {true, CHANNEL_INPUT, CHANNEL_ERROR, 1, DATA_LIMIT},
	[FRAME_EOF] = {true, CHANNEL_INPUT, CHANNEL_ERROR, 0, 0},
	[FRAME_CREDIT] = {true, 0, 0, 4, 4},
	[FRAME_CONTROL] = {true, 0, 255, 0, PAYLOAD_LIMIT},
	[FRAME_CLOSE] = {true, STATUS_OK, STATUS_UNAVAILABLE, 0, PAYLOAD_LIMIT},
	[FRAME_CANCEL] = {true, 0, 0, 0, 0},
	[FRAME_FREEZE] = {false, 0, 0, 8, 8},
	[FRAME_FROZEN] = {false, 0, 0, 8, 8},
	[FRAME_THAW] = {false, 0, 0, 0, 0},
	[FRAME_PING] = {false, 0, 0, 8, 8},
	[FRAME_PONG] = {false, 0, 0, 8, 8},
};

static const char *header_fault(const struct frame *frame, uint16_t zero)
{
	if (zero != 0)
		return "reserved header bytes are not zero";
	if (frame->type == 0 || frame->type >= sizeof shapes / sizeof *shapes)
		return "unknown frame type";
	const struct shape *shape = &shapes[frame->type];
	if (frame->length < shape->length_first || frame->length > shape->length_last)
		return "length does not fit the frame type";
	if ((frame->stream != 0) != shape->on_stream)
		return "stream does not fit the frame type";
	if (frame->channel < shape->channel_first || frame->channel > shape->channel_last)
		return "channel does not fit the frame type";
	return NULL;
}

enum decode_result frame_decode(const uint8_t *data, size_t size, struct frame *frame, const char **reason)
{
	if (size < HEADER_SIZE)
		return DECODE_MORE;
	frame->length = load_u32(data);
	frame->stream = load_u32(data + 4);
	frame->type = data[8];
	frame->channel = data[9];
	*reason = header_fault(frame, (uint16_t)(data[10] << 8 | data[11]));
	if (*reason)
		return DECODE_VIOLATION;
	if (size - HEADER_SIZE < frame->length)
		return DECODE_MORE;
	frame->payload = data + HEADER_SIZE;
	return DECODE_FRAME;
}

void frame_header(uint8_t *out, enum frame_type type, uint32_t stream, uint8_t channel, uint32_t length)
{
	store_u32(out, length);
	store_u32(out + 4, stream);
	out[8] = (uint8_t)type;
	out[9] = channel;
	out[10] = out[11] = 0;
}

int fields_next(struct fields *fields, struct field *field)
{
	size_t left = (size_t)(fields->end - fields->at);
	if (left == 0)
		return 0;
	if (left < FIELD_HEADER_SIZE)
		return -1;
	field->tag = fields->at[0];
	field->length = load_u32(fields->at + 1);
	if (left - FIELD_HEADER_SIZE < field->length)
		return -1;
	field->value = fields->at + FIELD_HEADER_SIZE;
	fields->at = field->value + field->length;
	return 1;
}

bool fields_valid(struct fields fields)
{
	struct field field;
	int step;
	while ((step = fields_next(&fields, &field)) > 0)
		;
	return step == 0;
}

bool fields_find(struct fields fields, enum tag tag, struct field *field)
{
	struct field next;
	bool found = false;
	while (fields_next(&fields, &next) > 0) {
		if (next.tag == tag) {
			*field = next;
			found = true;
		}
	}
	return found;
}

bool fields_uint(struct fields fields, enum tag tag, uint64_t fallback, uint64_t *value)
{
	struct field field;
	*value = fallback;
	if (!fields_find(fields, tag, &field))
		return true;
	if (field.length != 8)
		return false;
	*value = load_u64(field.value);
	return true;
}

void field_put(struct buffer *out, enum tag tag, const void *value, size_t length)
{
	uint8_t *header = buffer_reserve(out, FIELD_HEADER_SIZE);
	header[0] = (uint8_t)tag;
	store_u32(header + 1, (uint32_t)length);
	buffer_commit(out, FIELD_HEADER_SIZE);
	buffer_append(out, value, length);
}

void field_put_text(struct buffer *out, enum tag tag, const char *text)
{
	field_put(out, tag, text, strlen(text));
}

void field_put_uint(struct buffer *out, enum tag tag, uint64_t value)
{
	uint8_t bytes[8];
	store_u64(bytes, value);
	field_put(out, tag, bytes, sizeof bytes);
}
