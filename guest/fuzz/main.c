/* Gives a harness mutated seeds, without a fuzzer: `PROGRAM SEED ROUNDS` with a seed in hexadecimal on each line of the
 * input. libFuzzer has a main of its own, and finds more. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct line {
	uint8_t *bytes;
	size_t size;
};

static struct line *lines;
static size_t line_count;
static uint64_t state;

static void *must(void *memory)
{
	if (!memory)
		exit(1);
	return memory;
}

static void read_lines(void)
{
	static char text[4 << 20];
	while (fgets(text, sizeof text, stdin)) {
		size_t digits = strspn(text, "0123456789abcdef");
		struct line line = {.bytes = must(malloc(digits / 2 + 1)), .size = digits / 2};
		for (size_t i = 0; i < line.size; i++) {
			char pair[3] = {text[2 * i], text[2 * i + 1], 0};
			line.bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
		}
		lines = must(realloc(lines, (line_count + 1) * sizeof *lines));
		lines[line_count++] = line;
	}
}

static size_t random_below(size_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return limit ? (size_t)(state % limit) : 0;
}

/* Joins, cuts and overwrites: an exact allocation each time, so that reading past its end is seen. */
static void run_once(void)
{
	const struct line *first = &lines[random_below(line_count)], *second = &lines[random_below(line_count)];
	size_t keep = random_below(first->size + 1), skip = random_below(second->size + 1);
	size_t size = keep + second->size - skip;
	uint8_t *bytes = must(malloc(size ? size : 1));
	memcpy(bytes, first->bytes, keep);
	memcpy(bytes + keep, second->bytes + skip, size - keep);
	for (size_t changes = random_below(4); changes > 0 && size > 0; changes--)
		bytes[random_below(size)] = (uint8_t)random_below(256);
	LLVMFuzzerTestOneInput(bytes, size);
	free(bytes);
}

int main(int count, char **arguments)
{
	if (count != 3)
		return 2;
	read_lines();
	state = strtoull(arguments[1], NULL, 10) | 1;
	long rounds = line_count > 0 ? strtol(arguments[2], NULL, 10) : 0;
	for (long i = 0; i < rounds; i++)
		run_once();
	printf("ran %ld\n", rounds);
	while (line_count > 0)
		free(lines[--line_count].bytes);
	free(lines);
	return 0;
}
