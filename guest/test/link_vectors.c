/* Decodes what the golden vectors hold: one line of hexadecimal digits in, lines of text out.
 *
 *     frame <stream> <type> <channel> <payload>      for each whole frame
 *     field <tag> <value>                            with `fields` as argument: each field of the line
 *     violation <reason> | more <bytes left> | end   how the line ended
 *
 * With `fuzz <seed> <rounds>` it instead mutates the lines it read and decodes the result, whole and split at a random
 * place; a sanitizer ends the program when the codec does what it must not. */
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

static uint64_t checksum;

static void touch(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		checksum = checksum * 31 + bytes[i];
}

static void decode_fields(const uint8_t *bytes, size_t size, bool quiet)
{
	struct fields fields = {bytes, bytes + size};
	struct field field;
	uint64_t value;
	int step;
	while ((step = fields_next(&fields, &field)) > 0) {
		touch(field.value, field.length);
		if (quiet)
			continue;
		printf("field %u ", field.tag);
		print_hex(field.value, field.length);
		putchar('\n');
	}
	fields = (struct fields){bytes, bytes + size};
	for (unsigned tag = 0; quiet && tag < 64; tag++)
		if (fields_valid(fields) && fields_uint(fields, tag, 0, &value))
			checksum ^= value;
	if (!quiet)
		puts(step < 0 ? "violation a field runs past the end" : "end");
}

static void decode_frames(const uint8_t *bytes, size_t size, bool quiet)
{
	struct buffer incoming = {0};
	struct frame frame;
	const char *reason = NULL;
	enum decode_result result = DECODE_MORE;
	buffer_append(&incoming, bytes, size);
	while (buffer_size(&incoming) > 0 &&
	       (result = frame_decode(buffer_data(&incoming), buffer_size(&incoming), &frame, &reason)) == DECODE_FRAME) {
		touch(frame.payload, frame.length);
		if (quiet) {
			decode_fields(frame.payload, frame.length, true);
		} else {
			printf("frame %u %u %u ", frame.stream, frame.type, frame.channel);
			print_hex(frame.payload, frame.length);
			putchar('\n');
		}
		buffer_consume(&incoming, HEADER_SIZE + frame.length);
	}
	if (!quiet && result == DECODE_VIOLATION)
		printf("violation %s\n", reason);
	else if (!quiet && buffer_size(&incoming) > 0)
		printf("more %zu\n", buffer_size(&incoming));
	else if (!quiet)
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

static uint64_t state;

static size_t random_below(size_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return limit ? (size_t)(state % limit) : 0;
}

/* Joins, cuts and overwrites: an exact allocation each time, so that reading past its end is seen. */
static void fuzz_once(void)
{
	const struct line *first = &lines[random_below(line_count)], *second = &lines[random_below(line_count)];
	size_t keep = random_below(first->size + 1), skip = random_below(second->size + 1);
	size_t size = keep + second->size - skip;
	uint8_t *bytes = must_allocate(size);
	memcpy(bytes, first->bytes, keep);
	memcpy(bytes + keep, second->bytes + skip, size - keep);
	for (size_t changes = random_below(4); changes > 0 && size > 0; changes--)
		bytes[random_below(size)] = (uint8_t)random_below(256);
	decode_frames(bytes, size, true);
	decode_fields(bytes, size, true);
	free(bytes);
}

int main(int count, char **arguments)
{
	read_lines();
	if (count == 4 && strcmp(arguments[1], "fuzz") == 0) {
		state = strtoull(arguments[2], NULL, 10) | 1;
		long rounds = strtol(arguments[3], NULL, 10);
		for (long i = 0; i < rounds && line_count > 0; i++)
			fuzz_once();
		printf("fuzzed %ld %llx\n", rounds, (unsigned long long)checksum);
	}
	for (size_t i = 0; i < line_count; i++) {
		if (count == 1)
			decode_frames(lines[i].bytes, lines[i].size, false);
		else if (count == 2)
			decode_fields(lines[i].bytes, lines[i].size, false);
		free(lines[i].bytes);
	}
	free(lines);
	return 0;
}
