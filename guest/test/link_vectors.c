/* Decodes what the golden vectors hold: one line of hexadecimal digits in, lines of text out.
 *
 *     frame <stream> <type> <channel> <payload>      for each whole frame
 *     field <tag> <value>                            with `fields` as argument: each field of the line
 *     violation <reason> | more <bytes left> | end   how the line ended */
#include "link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What scripts/build-agent tells up to date by. */
extern const char mitos_build[];
const char mitos_build[] = MITOS_BUILD;

struct line {
	uint8_t *bytes;
	size_t size;
};

static struct line *lines;
static size_t line_count;

static void print_hex(const uint8_t *bytes, size_t size)
{
	if (size == 0)
		putchar('-');
	for (size_t i = 0; i < size; i++)
		printf("%02x", bytes[i]);
}

static void decode_fields(const uint8_t *bytes, size_t size)
{
	struct fields fields = {bytes, bytes + size};
	struct field field;
	int step;
	while ((step = fields_next(&fields, &field)) > 0) {
		printf("field %u ", field.tag);
		print_hex(field.value, field.length);
		putchar('\n');
	}
	puts(step < 0 ? "violation a field runs past the end" : "end");
}

static void decode_frames(const uint8_t *bytes, size_t size)
{
	struct buffer incoming = {0};
	struct frame frame;
	const char *reason = NULL;
	enum decode_result result = DECODE_MORE;
	buffer_append(&incoming, bytes, size);
	while (buffer_size(&incoming) > 0 &&
	       (result = frame_decode(buffer_data(&incoming), buffer_size(&incoming), &frame, &reason)) == DECODE_FRAME) {
		printf("frame %u %u %u ", frame.stream, frame.type, frame.channel);
		print_hex(frame.payload, frame.length);
		putchar('\n');
		buffer_consume(&incoming, HEADER_SIZE + frame.length);
	}
	if (result == DECODE_VIOLATION)
		printf("violation %s\n", reason);
	else if (buffer_size(&incoming) > 0)
		printf("more %zu\n", buffer_size(&incoming));
	else
		puts("end");
	buffer_free(&incoming);
}

static void read_lines(void)
{
	static char text[4 << 20];
	while (fgets(text, sizeof text, stdin)) {
		size_t digits = strspn(text, "0123456789abcdef");
		struct line line = {.bytes = must_allocate(digits / 2), .size = digits / 2};
		for (size_t i = 0; i < line.size; i++) {
			char pair[3] = {text[2 * i], text[2 * i + 1], 0};
			line.bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
		}
		lines = realloc(lines, (line_count + 1) * sizeof *lines);
		if (!lines)
			exit(1);
		lines[line_count++] = line;
	}
}

int main(int count, char **arguments)
{
	(void)arguments;
	read_lines();
	for (size_t i = 0; i < line_count; i++) {
		if (count == 1)
			decode_frames(lines[i].bytes, lines[i].size);
		else
			decode_fields(lines[i].bytes, lines[i].size);
		free(lines[i].bytes);
	}
	free(lines);
	return 0;
}
