#include "buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHRINK_ABOVE = 1 << 20 };

void *must_allocate(size_t size)
{
	void *memory = calloc(1, size ? size : 1);
	if (!memory) {
		fputs("mitos agent: out of memory\n", stderr);
		exit(1);
	}
	return memory;
}

char *must_copy(const void *data, size_t size)
{
	char *copy = must_allocate(size + 1);
	if (size)
		memcpy(copy, data, size);
	return copy;
}

static void make_room(struct buffer *buffer, size_t size)
{
	size_t used = buffer_size(buffer);
	if (buffer->start > 0) {
		memmove(buffer->storage, buffer_data(buffer), used);
		buffer->start = 0;
		buffer->end = used;
	}
	if (buffer->capacity - used >= size)
		return;
	size_t capacity = buffer->capacity ? buffer->capacity : 4096;
	while (capacity - used < size)
		capacity *= 2;
	uint8_t *storage = realloc(buffer->storage, capacity);
	if (!storage) {
		fputs("mitos agent: out of memory\n", stderr);
		exit(1);
	}
	buffer->storage = storage;
	buffer->capacity = capacity;
}

uint8_t *buffer_reserve(struct buffer *buffer, size_t size)
{
	if (buffer->capacity - buffer->end < size)
		make_room(buffer, size);
	return buffer->storage + buffer->end;
}

void buffer_commit(struct buffer *buffer, size_t size)
{
	buffer->end += size;
}

void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
	if (size == 0)
		return;
	memcpy(buffer_reserve(buffer, size), data, size);
	buffer_commit(buffer, size);
}

void buffer_consume(struct buffer *buffer, size_t size)
{
	buffer->start += size;
	if (buffer->start < buffer->end)
		return;
	buffer->start = buffer->end = 0;
	if (buffer->capacity > SHRINK_ABOVE)
		buffer_free(buffer);
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->storage);
	*buffer = (struct buffer){0};
}
